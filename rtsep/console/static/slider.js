// Parameters as the registry describes them, and sliders that a mouse, a finger, a keyboard and a screen reader can move.

export const STEADY = matchMedia('(prefers-reduced-motion: reduce)');
const FLAT = matchMedia('(max-width: 640px)');

export class Param {
  constructor(spec) { Object.assign(this, spec); }

  toUnit(value) {
    if (this.kind === 'choice') return this.choices.indexOf(value) / Math.max(this.choices.length - 1, 1);
    if (this.kind === 'bool') return value ? 1 : 0;
    const curve = this.curve;
    if (!curve) return (value - this.lowest) / (this.highest - this.lowest);
    let low = 0, high = curve.length - 1;
    if (value >= curve[high]) return 1;
    if (value <= curve[0]) return 0;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (curve[middle] <= value) low = middle; else high = middle;
    }
    return (low + (value - curve[low]) / (curve[high] - curve[low])) / (curve.length - 1);
  }

  fromUnit(x) {
    x = Math.min(1, Math.max(0, x));
    const curve = this.curve;
    if (!curve) return this.lowest + x * (this.highest - this.lowest);
    const place = x * (curve.length - 1), i = Math.min(Math.floor(place), curve.length - 2);
    return curve[i] + (place - i) * (curve[i + 1] - curve[i]);
  }

  // What a drag gives: round figures, and a catch at the default.
  rounded(value, fine) {
    if (this.scale === 'fader') {
      if (value <= this.lowest + 1) return this.lowest;
      return this.clamp(Math.round(value * 10) / 10);
    }
    if (this.scale === 'balance') return !fine && Math.abs(value) < 0.04 ? 0 : this.clamp(Math.round(value * 100) / 100);
    return this.clamp(Number(value.toPrecision(5)));
  }

  clamp(value) { return Math.min(this.highest, Math.max(this.lowest, value)); }

  // One press of an arrow key, in the parameter's own measure.
  stepped(value, steps, fine) {
    if (this.scale === 'fader') {
      const bottom = -70, step = fine ? 0.1 : 1;
      if (steps > 0 && value < bottom) return bottom;
      const next = Math.round((value + steps * step) * 10) / 10;
      return next < bottom ? this.lowest : this.clamp(next);
    }
    if (this.scale === 'balance') return this.clamp(Math.round((value + steps * (fine ? 0.01 : 0.05)) * 100) / 100);
    return this.clamp(this.fromUnit(this.toUnit(value) + steps * (fine ? 0.002 : 0.02)));
  }

  text(value) {
    if (this.kind === 'bool') return value ? 'on' : 'off';
    if (this.kind === 'choice') return value;
    if (this.scale === 'fader') return value <= -120 ? '−∞ dB' : `${signed(value)} dB`;
    if (this.scale === 'balance') {
      const percent = Math.round(100 * Math.abs(value));
      return percent === 0 ? 'C' : `${value < 0 ? 'L' : 'R'}${percent}`;
    }
    if (this.unit === 's' && this.highest >= 60) {
      const tenths = Math.round(10 * value);  // first, or 59.96 s would be 0:60.0
      return `${Math.floor(tenths / 600)}:${((tenths % 600) / 10).toFixed(1).padStart(4, '0')}`;
    }
    const shown = Math.abs(value) < 1e-5 * (this.highest - this.lowest) ? 0 : value;  // what rounding left of 0
    return `${Number(shown.toPrecision(4))} ${this.unit}`.trim();
  }

  // The same for a screen reader, which makes little of signs and letters.
  spoken(value) {
    if (this.scale === 'fader') return value <= -120 ? 'silent' : `${value.toFixed(1)} decibels`;
    if (this.scale === 'balance') {
      const percent = Math.round(100 * Math.abs(value));
      return percent === 0 ? 'centre' : `${percent} percent ${value < 0 ? 'left' : 'right'}`;
    }
    return this.text(value);
  }
}

export function signed(value, digits = 1) {
  const text = Math.abs(value).toFixed(digits);
  return Number(text) === 0 ? text : (value < 0 ? '−' : '+') + text;
}

export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === 'text') element.textContent = value; else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

// A slider for one float parameter. `upright` ones lie down on a narrow screen.
export class Slider {
  static held = new Set();  // those that a hand is on
  static whenFree = null;  // called when no hand is on any

  constructor(param, { kind, upright = false, onInput, show }) {
    this.param = param;
    this.value = param.value;
    this.onInput = onInput;
    this.show = show || (() => {});
    this.upright = upright;
    this.pointer = null;  // of the hand that is on it
    this.waiting = undefined;
    this.cap = make('div', { class: 'cap' });
    this.fill = make('div', { class: 'fill' });
    this.track = make('div', { class: 'track' }, this.fill, this.cap);
    this.element = make('div', {
      class: `slider ${kind}`, role: 'slider', tabindex: '0', 'aria-label': param.label,
      'aria-valuemin': param.lowest, 'aria-valuemax': param.highest, 'data-path': param.path,
    }, this.track);
    const el = this.element;
    el.addEventListener('pointerdown', (event) => this.grab(event));
    el.addEventListener('pointermove', (event) => this.move(event));
    for (const name of ['pointerup', 'pointercancel', 'lostpointercapture']) el.addEventListener(name, (event) => this.release(event));
    el.addEventListener('dblclick', () => this.input(param.default));
    el.addEventListener('keydown', (event) => this.key(event));
    FLAT.addEventListener('change', () => this.draw());
    this.draw();
  }

  get vertical() { return this.upright && !FLAT.matches; }

  place(event) {
    const box = this.track.getBoundingClientRect();
    return this.vertical ? (box.bottom - event.clientY) / box.height : (event.clientX - box.left) / box.width;
  }

  grab(event) {
    if (event.button !== 0 || this.pointer !== null) return;
    if (event.ctrlKey || event.metaKey) { this.input(this.param.default); return; }
    this.element.focus({ preventScroll: true });
    this.element.setPointerCapture(event.pointerId);
    this.pointer = event.pointerId;
    Slider.held.add(this);
    // A mouse beside the cap means that place; a finger takes the cap from anywhere, so that nothing jumps.
    if (event.pointerType === 'mouse' && !this.cap.contains(event.target)) {
      this.input(this.param.rounded(this.param.fromUnit(this.place(event)), event.shiftKey));
    }
    this.from = this.place(event);
    this.start = this.param.toUnit(this.value);
    event.preventDefault();
  }

  move(event) {
    if (event.pointerId !== this.pointer) return;
    const way = this.place(event) - this.from;
    const x = this.start + way * (event.shiftKey ? 0.2 : 1);
    this.input(this.param.rounded(this.param.fromUnit(x), event.shiftKey));
  }

  release(event) {
    if (event.pointerId !== this.pointer) return;
    this.pointer = null;
    Slider.held.delete(this);
    if (this.waiting !== undefined) this.set(this.waiting);
    this.waiting = undefined;
    if (!Slider.held.size) Slider.whenFree?.();
  }

  key(event) {
    const { param, value } = this;
    const steps = { ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1, PageUp: 6, PageDown: -6 }[event.key];
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (steps) this.input(param.stepped(value, steps, event.shiftKey));
    else if (event.key === 'Home') this.input(param.lowest);
    else if (event.key === 'End') this.input(param.highest);
    else if (event.key === '0' || event.key === 'Delete' || event.key === 'Backspace') this.input(param.default);
    else return;
    event.preventDefault();
  }

  input(value) {
    if (value === this.value) return;
    this.waiting = undefined;  // what somebody else set meanwhile is older than this
    this.value = value;
    this.draw();
    this.onInput(value);
  }

  // From elsewhere; while a hand is on it, it stays where the hand is.
  set(value) {
    if (this.pointer !== null) { this.waiting = value; return; }
    this.value = value;
    this.draw();
  }

  draw() {
    const { param, value, element } = this;
    const x = `${100 * param.toUnit(value)}%`;
    if (this.vertical) { this.cap.style.bottom = x; this.cap.style.left = ''; } else { this.cap.style.left = x; this.cap.style.bottom = ''; }
    if (!this.upright) {
      const zero = param.scale === 'balance' ? 0.5 : 0, unit = param.toUnit(value);
      this.fill.style.left = `${100 * Math.min(zero, unit)}%`;
      this.fill.style.width = `${100 * Math.abs(unit - zero)}%`;
    }
    element.setAttribute('aria-orientation', this.vertical ? 'vertical' : 'horizontal');
    element.setAttribute('aria-valuenow', value);
    element.setAttribute('aria-valuetext', param.spoken(value));
    this.show(param.text(value));
  }
}

export function makeSwitch(param, text, kind, onInput) {
  const button = make('button', {
    type: 'button', class: `switch ${kind}`, 'aria-label': param.label, 'aria-pressed': String(Boolean(param.value)),
    'data-path': param.path, title: param.label, text,
  });
  button.addEventListener('click', () => {
    const on = button.getAttribute('aria-pressed') !== 'true';
    button.setAttribute('aria-pressed', String(on));
    onInput(on);
  });
  return { element: button, set: (value) => button.setAttribute('aria-pressed', String(Boolean(value))) };
}
