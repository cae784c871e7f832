// Channel strips, the master's, and whatever else can be moved.

import { Param, Slider, make, makeSwitch, signed } from './slider.js';

const FADER_MARKS = [24, 12, 6, 0, -6, -12, -20, -30, -50, -120];
const METER_MARKS = [6, 0, -6, -12, -20, -30, -40, -60];
const HOLD_MS = 1500, FALL_DB_PER_S = 12, FLOOR_DB = -90;
const COLOURS = 8;

// How far a meter goes, 0 to 1: the deflection of IEC 60268-18, with 6 dB above full scale.
export function deflection(db) {
  let percent;
  if (db < -70) percent = 0;
  else if (db < -60) percent = (db + 70) * 0.25;
  else if (db < -50) percent = (db + 60) * 0.5 + 2.5;
  else if (db < -40) percent = (db + 50) * 0.75 + 7.5;
  else if (db < -30) percent = (db + 40) * 1.5 + 15;
  else if (db < -20) percent = (db + 30) * 2 + 30;
  else percent = (Math.min(db, 6) + 20) * 2.5 + 50;
  return percent / 115;
}

const FLAT = matchMedia('(max-width: 640px)');

class Meter {
  constructor(label) {
    this.peak = make('div', { class: 'peak' });
    this.rms = make('div', { class: 'rms' });
    this.hold = make('div', { class: 'hold' });
    this.element = make('div', { class: 'meter', role: 'img', 'aria-label': label }, this.peak, this.rms, this.hold);
    this.label = label;
    this.held = FLOOR_DB;
    this.heldAt = this.shownAt = this.saidAt = 0;
    FLAT.addEventListener('change', () => { this.hold.style.bottom = this.hold.style.left = ''; });
  }

  draw(peakDb, rmsDb, now) {
    const past = now - this.shownAt;
    this.shownAt = now;
    if (peakDb >= this.held) { this.held = peakDb; this.heldAt = now; }
    else if (now - this.heldAt > HOLD_MS) this.held = Math.max(peakDb, this.held - FALL_DB_PER_S * Math.min(past, 200) / 1000);
    const flat = FLAT.matches;
    const cut = (db) => {
      const rest = `${(100 * (1 - deflection(db))).toFixed(2)}%`;
      return flat ? `inset(0 ${rest} 0 0)` : `inset(${rest} 0 0 0)`;
    };
    this.peak.style.clipPath = cut(peakDb);
    this.rms.style.clipPath = cut(rmsDb);
    const place = `${(100 * deflection(this.held)).toFixed(2)}%`;
    if (flat) this.hold.style.left = place; else this.hold.style.bottom = place;
    if (now - this.saidAt > 1000) {
      this.saidAt = now;
      this.element.setAttribute('aria-label', `${this.label}: ${peakDb <= FLOOR_DB ? 'silent' : `${peakDb.toFixed(0)} decibels`}`);
    }
    return this.held;
  }
}

function scale(kind, marks, place, text) {
  const element = make('div', { class: `scale ${kind}`, 'aria-hidden': 'true' });
  for (const mark of marks) {
    const x = `${100 * place(mark)}%`;
    const label = make('span', { text: text(mark) });
    // One of the two is used: bottom upright, left lying down.
    label.style.setProperty('--x', x);
    element.append(label);
  }
  return element;
}

// As on a console: what is below 0 goes without its sign.
const number = (db) => (db <= -120 ? '∞' : db > 0 ? `+${db}` : String(-db));

class Strip {
  // `fields`: parameters by the last part of their paths.
  constructor(name, title, fields, index, send) {
    this.setters = {};
    this.lastLevel = '';
    const element = this.element = make('section', { class: 'strip', 'aria-label': title, 'data-strip': name });
    if (index >= 0) element.style.setProperty('--stem', `var(--stem-${index % COLOURS})`);
    element.append(make('h3', { text: title, title }));
    const switches = make('div', { class: 'switches' });
    for (const [field, text] of [['mute', 'Mute'], ['solo', 'Solo'], ['bypass', 'Bypass'], ['limiter', 'Limit']]) {
      if (!fields[field]) continue;
      const made = makeSwitch(fields[field], text, field, (on) => send(fields[field].path, on));
      this.setters[fields[field].path] = made.set;
      switches.append(made.element);
    }
    element.append(switches);
    const row = make('div', { class: 'pan-row' });
    if (fields.pan) {
      const said = make('span', { class: 'said', 'aria-hidden': 'true' });
      const pan = new Slider(fields.pan, { kind: 'pan', onInput: (v) => send(fields.pan.path, v), show: (t) => { said.textContent = t; } });
      this.setters[fields.pan.path] = (value) => pan.set(value);
      row.append(pan.element, said);
    } else row.append(make('div', { class: 'pan' }));
    element.append(row);

    this.meter = new Meter(`${title} level`);
    const levels = make('div', { class: 'levels' });
    const gain = fields.gain_db;
    const level = this.level = make('span', { class: 'level', title: 'Peak, held, in dB of full scale', text: '−∞' });
    const value = make('span', { class: 'gain', title: 'Gain' });
    if (gain) {
      const param = new Param(gain);
      const marks = FADER_MARKS.filter((db) => db >= param.lowest && db <= param.highest);
      const fader = new Slider(gain, {
        kind: 'fader', upright: true, onInput: (v) => send(gain.path, v),
        show: (text) => { value.textContent = text.replace(' dB', ''); },
      });
      const ticks = make('div', { class: 'ticks', 'aria-hidden': 'true' });
      for (const mark of marks) {
        const tick = make('i', mark === 0 ? { class: 'zero' } : {});
        tick.style.setProperty('--x', `${100 * param.toUnit(mark)}%`);
        ticks.append(tick);
      }
      fader.element.prepend(ticks);
      this.setters[gain.path] = (v) => fader.set(v);
      levels.append(scale('of-fader', marks, (db) => param.toUnit(db), number), fader.element);
    } else levels.append(make('div'), make('div'));
    levels.append(this.meter.element, scale('of-meter', METER_MARKS, deflection, number));
    this.slots = make('div', { class: 'slots', hidden: '' });
    element.append(levels, make('div', { class: 'readout' }, value, level), this.slots);
  }

  draw(peakDb, rmsDb, now) {
    const held = this.meter.draw(peakDb, rmsDb, now);
    const text = held <= FLOOR_DB ? '−∞' : signed(held);
    if (text !== this.lastLevel) {
      this.lastLevel = text;
      this.level.textContent = text;
      this.level.classList.toggle('over', held > 0);
    }
  }
}

// All strips, and a panel for parameters that belong to none.
export class Mixer {
  constructor({ strips, others, panel, notes, transport, record }, send, onBuilt) {
    Object.assign(this, { stripsAt: strips, othersAt: others, notesAt: notes, transportAt: transport, recordAt: record, panel, send, onBuilt });
    this.params = new Map();
    this.setters = new Map();
    this.strips = [];
    this.about = null;
  }

  setTable(about, table) {
    this.about = about;
    this.params = new Map(table.map((spec) => [spec.path, new Param(spec)]));
    this.build();
  }

  changeTable({ added, removed }) {
    for (const path of removed) this.params.delete(path);
    for (const spec of added) this.params.set(spec.path, new Param(spec));
    this.build();
  }

  setValues(values) {
    for (const [path, value] of Object.entries(values)) {
      const param = this.params.get(path);
      if (!param) continue;
      param.value = value;
      this.setters.get(path)?.(value);
    }
  }

  // A hand on a fader must not lose it: a table that changes meanwhile is shown when it lets go.
  build() {
    for (const slider of Slider.held) if (!slider.element.isConnected) Slider.held.delete(slider);
    if (Slider.held.size) { Slider.whenFree = () => this.build(); return; }
    Slider.whenFree = null;
    const focused = document.activeElement?.dataset?.path;
    const groups = new Map(), others = [];
    for (const param of this.params.values()) {
      const parts = param.path.split('/');
      const strip = parts[0] === 'stem' && parts.length === 3 ? parts[1] : parts[0] === 'master' && parts.length === 2 ? ' master' : null;
      if (strip === null) { others.push(param); continue; }
      if (!groups.has(strip)) groups.set(strip, {});
      groups.get(strip)[parts.at(-1)] = param;
    }
    const send = (path, value) => {
      if (this.params.has(path)) this.params.get(path).value = value;
      this.send(path, value);
    };
    const stems = this.about.stems.map((stem) => stem.replaceAll(' ', '_'));
    const names = [...groups.keys()].filter((name) => name !== ' master');
    if (groups.has(' master')) names.push(' master');
    this.setters = new Map();
    this.strips = names.map((name) => {
      const stem = stems.indexOf(name);
      const master = name === ' master';
      const strip = new Strip(name.trim(), master ? 'Master' : name.replaceAll('_', ' '), groups.get(name), master ? -1 : stem >= 0 ? stem : stems.length + names.indexOf(name), send);
      if (master) strip.element.classList.add('master');
      strip.stem = master ? 'master' : stem;
      // An instrument that is no stem of its own has no level of its own.
      if (!master && stem < 0) strip.element.classList.add('levelless');
      for (const [path, setter] of Object.entries(strip.setters)) this.setters.set(path, setter);
      return strip;
    });
    this.stripsAt.replaceChildren(...this.strips.map((strip) => strip.element));
    const of = (group) => others.filter((param) => param.path.startsWith(group));
    const ofNotes = of('notes/'), ofInput = of('input/'), ofRecord = of('record/');
    const rest = others.filter((param) => ![ofNotes, ofInput, ofRecord].some((group) => group.includes(param)));
    this.recordAt.replaceChildren(...ofRecord.map((param) => {
      const made = makeSwitch(param, 'Record', 'record', (on) => send(param.path, on));
      this.setters.set(param.path, made.set);
      return made.element;
    }));
    this.recordAt.parentElement.hidden = ofRecord.length === 0;
    this.transportAt.replaceChildren(...ofInput.map((param) => this.other(param, send)));
    this.transportAt.hidden = ofInput.length === 0;
    this.notesAt.replaceChildren(...ofNotes.map((param) => this.other(param, send)));
    this.othersAt.replaceChildren(...rest.map((param) => this.other(param, send)));
    this.panel.hidden = rest.length === 0;
    const raw = (strip) => (strip.stem === 'master' ? 'master' : this.about.stems[strip.stem]);
    this.onBuilt(new Map(this.strips.filter((strip) => strip.stem === 'master' || strip.stem >= 0).map((strip) => [raw(strip), strip.slots])));
    if (focused) document.querySelector(`[data-path="${CSS.escape(focused)}"]`)?.focus();
  }

  other(param, send) {
    const said = make('span', { 'aria-hidden': 'true' });
    const box = make('div', { class: 'other' });
    if (param.kind === 'float') {
      const slider = new Slider(param, { kind: 'pan', onInput: (v) => send(param.path, v), show: (t) => { said.textContent = t; } });
      this.setters.set(param.path, (value) => slider.set(value));
      box.append(make('div', { class: 'names' }, make('span', { text: param.label }), said), slider.element);
    } else if (param.kind === 'bool') {
      const made = makeSwitch(param, param.label, '', (on) => send(param.path, on));
      this.setters.set(param.path, made.set);
      box.append(made.element);
    } else {
      const select = make('select', { 'data-path': param.path });
      for (const choice of param.choices) select.append(make('option', { value: choice, text: choice }));
      select.value = param.value;
      select.addEventListener('change', () => send(param.path, select.value));
      this.setters.set(param.path, (value) => { select.value = value; });
      box.append(make('label', { class: 'names' }, param.label, select));
    }
    return box;
  }

  draw(frame, now) {
    for (const strip of this.strips) {
      if (strip.stem === 'master') {
        strip.draw(frame.masterPeak, frame.masterRms, now);
        strip.level.classList.toggle('clipped', frame.clipped > 0);
        strip.level.title = frame.clipped ? `${frame.clipped} samples of the output were beyond full scale` : 'Peak, held, in dB of full scale';
      } else if (strip.stem >= 0) strip.draw(frame.peaks[strip.stem], frame.rms[strip.stem], now);
    }
  }
}
