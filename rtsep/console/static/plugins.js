// Plugin slots of the strips, and the window that one is set in.

import { Param, Slider, make, makeSwitch } from './slider.js';

export class Plugins {
  // `send(command)` at once; `sendSoon(key, command)` for what moves.
  constructor(dialog, send, sendSoon) {
    Object.assign(this, { dialog, send, sendSoon });
    this.chains = {};
    this.offered = [];
    this.boxes = new Map();
    this.open = null;  // [target, slot]
    this.setters = new Map();
    this.loading = new Map();
    this.chosen = new Map();  // in the lists of what can be added
    dialog.addEventListener('close', () => {
      const [target, slot] = this.open ?? [];
      this.open = null;
      this.setters.clear();
      // The button that opened it may have been made anew, or be gone.
      this.focus(`${target}/${slot}`, `${target}/add`);
    });
    dialog.addEventListener('click', (event) => { if (event.target === dialog) dialog.close(); });
  }

  // The first of these that is there.
  focus(...names) {
    for (const name of names) {
      const element = document.querySelector(`[data-slot="${CSS.escape(name)}"]`);
      if (element) { element.focus(); return; }
    }
  }

  // Strips are built anew: `boxes` are where their slots go, by target.
  place(boxes) { this.boxes = boxes; this.draw(); }

  set(state) {
    const was = this.chains;
    this.chains = state ? state.chains : {};
    this.offered = state ? state.offered : [];
    this.loading.clear();
    this.draw();
    if (!this.open) return;
    const [target, slot] = this.open, now = this.chains[target]?.[slot], before = was[target]?.[slot];
    if (!now || now.label !== before?.label || now.parameters.length !== before.parameters.length) { this.dialog.close(); return; }
    for (const spec of now.parameters) this.setters.get(spec.path)?.(spec.value);
    this.setters.get(' bypass')?.(now.bypass);
  }

  draw() {
    const focused = document.activeElement?.dataset?.slot;
    for (const [target, box] of this.boxes) {
      const chain = this.chains[target];
      box.hidden = !chain;
      if (!chain) continue;
      const rows = chain.map((slot, index) => this.row(target, slot, index));
      if (this.loading.has(target)) rows.push(make('p', { class: 'slot loading', role: 'status', text: `Loading ${this.loading.get(target)}` }));
      const add = make('select', { class: 'add', 'aria-label': `Add a plugin to ${target}`, 'data-slot': `${target}/add` });
      add.append(make('option', { value: '', text: '+ Plugin' }));
      for (const { name, summary } of this.offered) add.append(make('option', { value: name, text: `${name}: ${summary}` }));
      // A button beside it: arrow keys change a closed list at once, and would add whatever they pass.
      const go = make('button', { type: 'button', class: 'switch', 'aria-label': `Add to ${target}`, text: 'Add', hidden: '' });
      add.addEventListener('change', () => { go.hidden = !add.value; this.chosen.set(target, add.value); });
      go.addEventListener('click', () => {
        add.focus();
        this.loading.set(target, add.value);
        this.chosen.delete(target);
        this.send({ do: 'add', target, name: add.value });
        this.draw();
      });
      add.value = this.chosen.get(target) ?? '';
      go.hidden = !add.value;
      box.replaceChildren(...rows, make('div', { class: 'adding' }, add, go));
    }
    if (focused) this.focus(focused, focused.replace(/\/(\d+(\/lamp)?|add)$/, '/add'));
  }

  row(target, slot, index) {
    const lamp = makeSwitch({ label: `${slot.label} on ${target}`, value: !slot.bypass && !slot.fault, path: '' }, '', 'lamp',
      (on) => this.send({ do: 'bypass', target, slot: index, value: !on }));
    const open = make('button', { type: 'button', class: 'open', 'data-slot': `${target}/${index}`, title: slot.fault || `Set ${slot.label}`, text: slot.label });
    open.addEventListener('click', () => this.show(target, index));
    lamp.element.dataset.slot = `${target}/${index}/lamp`;
    if (slot.fault) lamp.element.disabled = true;
    return make('div', { class: slot.fault ? 'slot faulty' : 'slot' }, lamp.element, open);
  }

  show(target, index) {
    const slot = this.chains[target][index], { dialog } = this;
    this.open = [target, index];
    this.setters.clear();
    const close = make('button', { type: 'button', class: 'switch', text: 'Close' });
    close.addEventListener('click', () => dialog.close());
    const act = (text, command, off) => {
      const button = make('button', { type: 'button', class: 'switch', text });
      button.disabled = off;
      button.addEventListener('click', () => { this.send({ target, slot: index, ...command }); dialog.close(); });
      return button;
    };
    const bypass = makeSwitch({ label: `${slot.label} bypass`, value: slot.bypass, path: '' }, 'Bypass', 'mute',
      (on) => this.send({ do: 'bypass', target, slot: index, value: on }));
    this.setters.set(' bypass', bypass.set);
    const settings = make('div', { class: 'settings' });
    for (const spec of slot.parameters) settings.append(this.setting(target, index, spec));
    if (!slot.parameters.length) settings.append(make('p', { class: 'dim', text: 'Nothing to set.' }));
    const about = slot.fault ? `Left out: ${slot.fault}` : `${target}, ${slot.latency_ms ? `${slot.latency_ms.toFixed(1)} ms late` : 'no latency'}`;
    dialog.replaceChildren(
      make('div', { class: 'title' }, make('h2', { text: slot.label }), make('span', { class: 'dim', text: about }), close),
      settings,
      make('div', { class: 'acts' }, bypass.element,
        act('Earlier', { do: 'move', to: index - 1 }, index === 0),
        act('Later', { do: 'move', to: index + 1 }, index === this.chains[target].length - 1),
        act('Remove', { do: 'remove' }, false)),
    );
    dialog.setAttribute('aria-label', `${slot.label} on ${target}`);
    dialog.showModal();
  }

  setting(target, slot, spec) {
    const param = new Param(spec), said = make('span', { 'aria-hidden': 'true' });
    const set = (value) => this.sendSoon(`${target}/${slot}/${spec.path}`, { do: 'set', target, slot, name: spec.path, value });
    const box = make('div', { class: 'other' });
    if (spec.kind === 'float') {
      const slider = new Slider(param, { kind: 'pan', onInput: set, show: (text) => { said.textContent = text; } });
      this.setters.set(spec.path, (value) => slider.set(value));
      box.append(make('div', { class: 'names' }, make('span', { text: spec.label }), said), slider.element);
    } else if (spec.kind === 'bool') {
      const made = makeSwitch(param, spec.label, '', set);
      this.setters.set(spec.path, made.set);
      box.append(made.element);
    } else {
      const select = make('select', {});
      for (const choice of spec.choices) select.append(make('option', { value: choice, text: choice }));
      select.value = spec.value;
      select.addEventListener('change', () => set(select.value));
      this.setters.set(spec.path, (value) => { select.value = value; });
      box.append(make('label', { class: 'names' }, spec.label, select));
    }
    return box;
  }
}
