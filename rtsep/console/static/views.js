// What scrolls: notes, spectra, hop times; and the sum of the latency.

import { make } from './slider.js';

export const SECONDS = 12;
const HOP_SECONDS = 30;
const COLUMNS_PER_S = 30;
const NOTES = ['C', 'C♯', 'D', 'E♭', 'E', 'F', 'F♯', 'G', 'A♭', 'A', 'B♭', 'B'];
const COLOURS = 8;

const noteName = (pitch) => `${NOTES[pitch % 12]}${Math.floor(pitch / 12) - 1}`;
const FONT = '10px system-ui, sans-serif';

let palette = null;
export function colours() {
  if (palette === null) {
    const style = getComputedStyle(document.documentElement);
    const get = (name) => style.getPropertyValue(`--${name}`).trim();
    palette = { well: get('well'), line: get('line'), dim: get('dim'), text: get('text'), bad: get('bad'), warn: get('warn'), good: get('good'), panel: get('panel') };
    palette.stems = Array.from({ length: COLOURS }, (_, i) => get(`stem-${i}`));
    palette.dark = style.colorScheme === 'dark';
  }
  return palette;
}
export function forgetColours() { palette = null; }

function fit(canvas) {
  const ratio = Math.min(window.devicePixelRatio || 1, 2);
  const width = Math.round(canvas.clientWidth * ratio), height = Math.round(canvas.clientHeight * ratio);
  if (canvas.width !== width || canvas.height !== height) { canvas.width = width; canvas.height = height; }
  const context = canvas.getContext('2d', { alpha: false });
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  return [context, canvas.clientWidth, canvas.clientHeight, ratio];
}

// --- notes ---------------------------------------------------------------------------------------------------------------

export class Roll {
  constructor(canvas, words) {
    Object.assign(this, { canvas, words });
    this.notes = [];
    this.open = new Map();
    this.stems = [];
    this.low = 48; this.high = 76;
    this.saidAt = 0;
  }

  clear(stems) { this.stems = stems; this.notes = []; this.open.clear(); }

  add(events) {
    for (const [kind, stem, pitch, velocity, at] of events) {
      const key = `${stem}/${pitch}`, before = this.open.get(key);
      if (before) { before.end = at; this.open.delete(key); }
      if (kind !== 'on') continue;
      const note = { stem, pitch, velocity, start: at, end: null };
      this.notes.push(note);
      this.open.set(key, note);
    }
    if (this.notes.length > 4000) this.notes.splice(0, 1000);
  }

  // Wide enough for what is there, an octave at a time, so that it seldom jumps.
  range(since) {
    let low = 48, high = 72;
    for (const note of this.notes) {
      if (note.end !== null && note.end < since) continue;
      low = Math.min(low, note.pitch); high = Math.max(high, note.pitch);
    }
    this.low = 12 * Math.floor(low / 12); this.high = Math.max(12 * Math.ceil((high + 1) / 12), this.low + 36);
  }

  draw(now, clock) {
    const [c, width, height] = fit(this.canvas), col = colours();
    const keys = 30, since = now - SECONDS;
    while (this.notes.length && this.notes[0].end !== null && this.notes[0].end < since - 3) this.notes.shift();
    this.range(since);
    const row = height / (this.high - this.low);
    const x = (at) => keys + (at - since) / SECONDS * (width - keys);
    const y = (pitch) => height - (pitch - this.low + 1) * row;
    c.fillStyle = col.well; c.fillRect(0, 0, width, height);
    c.font = FONT; c.textBaseline = 'middle'; c.textAlign = 'left';
    for (let pitch = this.low; pitch < this.high; pitch++) {
      const tone = pitch % 12;
      if ([1, 3, 6, 8, 10].includes(tone)) {
        c.globalAlpha = 0.22; c.fillStyle = col.line; c.fillRect(keys, y(pitch), width - keys, row); c.globalAlpha = 1;
      }
      if (tone === 0) {
        c.fillStyle = col.line; c.fillRect(keys, y(pitch) + row - 0.5, width - keys, 1);
        c.fillStyle = col.dim; c.fillText(noteName(pitch), 4, Math.min(y(pitch) + row / 2, height - 6));
      }
    }
    c.fillStyle = col.line;
    for (let second = Math.ceil(since); second <= now; second++) if (second % 2 === 0) c.fillRect(x(second), 0, 1, height);
    c.fillRect(keys - 1, 0, 1, height);
    for (const note of this.notes) {
      const left = Math.max(x(note.start), keys), right = note.end === null ? width : x(note.end);
      if (right <= keys) continue;
      c.globalAlpha = 0.45 + 0.55 * note.velocity / 127;
      c.fillStyle = col.stems[note.stem % COLOURS];
      c.beginPath();
      c.roundRect(left, y(note.pitch) + Math.min(1, row / 6), Math.max(right - left, 3), Math.max(row - Math.min(2, row / 3), 2.5), 2);
      c.fill();
    }
    c.globalAlpha = 1;
    if (clock - this.saidAt > 2000) {
      this.saidAt = clock;
      const sounding = [...this.open.values()].map((n) => `${this.stems[n.stem] ?? ''} ${noteName(n.pitch)}`.trim());
      this.words.textContent = sounding.length ? `Sounding: ${sounding.join(', ')}.` : `${this.notes.length} notes in the last twelve seconds.`;
    }
  }
}

// --- spectra -------------------------------------------------------------------------------------------------------------

const WIDTH = SECONDS * COLUMNS_PER_S;

export class Spectra {
  constructor(box) { this.box = box; this.lanes = []; this.bands = 0; }

  clear(stems) {
    this.bands = 0;
    this.last = null;
    this.box.replaceChildren();
    this.lanes = stems.map((stem, index) => {
      const canvas = make('canvas', { role: 'img', 'aria-label': `Spectrogram of ${stem}, the last twelve seconds, 40 hertz to 16 kilohertz` });
      const label = make('span', { text: stem, 'aria-hidden': 'true' });
      label.style.color = `var(--stem-${index % COLOURS})`;
      this.box.append(make('div', { class: 'spectrum' }, canvas, label));
      return { canvas, index, levels: null, picture: document.createElement('canvas'), table: null };
    });
  }

  // Levels to colours: from the ground over the stem's own to nearly the text's.
  tables() {
    const col = colours(), rgb = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
    for (const lane of this.lanes) {
      const stops = [rgb(col.well), rgb(col.stems[lane.index % COLOURS]), col.dark ? [255, 250, 235] : [25, 22, 30]];
      lane.table = new Uint32Array(256);
      for (let i = 0; i < 256; i++) {
        const x = Math.pow(i / 255, 1.5) * 2, k = Math.min(Math.floor(x), 1), part = x - k;
        const [r, g, b] = stops[k].map((from, j) => Math.round(from + part * (stops[k + 1][j] - from)));
        lane.table[i] = (255 << 24) | (b << 16) | (g << 8) | r;
      }
    }
  }

  recolour() {
    if (!this.bands) return;
    this.tables();
    for (const lane of this.lanes) for (let i = 0; i < WIDTH; i++) this.paint(lane, i);
  }

  begin(bands) {
    this.bands = bands;
    for (const lane of this.lanes) {
      lane.levels = new Uint8Array(WIDTH * bands);
      lane.picture.width = WIDTH; lane.picture.height = bands;
      lane.context = lane.picture.getContext('2d', { alpha: false });
      lane.column = lane.context.createImageData(1, bands);
      lane.words = new Uint32Array(lane.column.data.buffer);
    }
    this.recolour();
  }

  paint(lane, i) {
    for (let band = 0; band < this.bands; band++) lane.words[this.bands - 1 - band] = lane.table[lane.levels[i * this.bands + band]];
    lane.context.putImageData(lane.column, i, 0);
  }

  add(frame) {
    if (!frame.spectra || !this.lanes.length) return;
    if (frame.bands !== this.bands) this.begin(frame.bands);
    const at = Math.floor(frame.column * COLUMNS_PER_S);
    if (this.last === null || at < this.last || at - this.last > WIDTH) this.last = at - 1;
    // A column that was missed shows its neighbour; a pause shows nothing.
    const gap = at - this.last > 4;
    for (let column = this.last + 1; column <= at; column++) {
      const i = ((column % WIDTH) + WIDTH) % WIDTH;
      for (const lane of this.lanes) {
        const levels = frame.spectra.subarray(lane.index * this.bands, (lane.index + 1) * this.bands);
        if (gap && column < at) lane.levels.fill(0, i * this.bands, (i + 1) * this.bands);
        else lane.levels.set(levels, i * this.bands);
        this.paint(lane, i);
      }
    }
    this.last = at;
  }

  draw(now) {
    const col = colours();
    for (const lane of this.lanes) {
      const [c, width, height] = fit(lane.canvas);
      c.fillStyle = col.well; c.fillRect(0, 0, width, height);
      if (this.last === null || this.last === undefined || !this.bands) continue;
      const head = ((this.last % WIDTH) + WIDTH) % WIDTH + 1;  // the oldest column
      const column = width / WIDTH, right = width - Math.max(0, now * COLUMNS_PER_S - this.last - 1) * column;
      c.imageSmoothingEnabled = true;
      // Two pieces of the ring: the older one first.
      if (head < WIDTH) c.drawImage(lane.picture, head, 0, WIDTH - head, this.bands, right - width, 0, (WIDTH - head) * column, height);
      c.drawImage(lane.picture, 0, 0, head, this.bands, right - head * column, 0, head * column, height);
    }
  }
}

// --- hop times -----------------------------------------------------------------------------------------------------------

export class Hops {
  constructor(canvas, words, counters, events) {
    Object.assign(this, { canvas, words, counters, events });
    this.figures = {};
    for (const [key, label] of [['hops', 'Hops'], ['late', 'Late'], ['xruns', 'Xruns'], ['covered', 'Covered by the input'], ['silentMs', 'Silence'], ['p50', 'p50'], ['p99', 'p99'], ['max', 'Longest']]) {
      const dd = make('dd', { text: '–' });
      this.figures[key] = dd;
      counters.append(make('div', {}, make('dt', { text: label }), dd));
    }
    this.clear();
  }

  clear() { this.dots = []; this.marks = []; this.events.replaceChildren(make('li', { class: 'dim', text: 'None so far.' })); this.saidAt = 0; }

  add(frame) {
    for (const time of frame.hopTimes) this.dots.push([frame.position, time]);
    while (this.dots.length && this.dots[0][0] < frame.position - HOP_SECONDS) this.dots.shift();
    if (this.dots.length > 30000) this.dots.splice(0, 5000);
  }

  mark(events) {
    for (const event of events) {
      if (!event.earlier) this.marks.push(event);
      if (this.events.firstElementChild?.classList.contains('dim')) this.events.replaceChildren();
      const times = event.count > 1 ? ` × ${event.count}` : '';
      this.events.prepend(make('li', {}, `${event.earlier ? 'before ' : ''}${clock(event.at)} `, make('b', { text: `${event.kind}${times}` }),
        event.why ? make('span', { class: 'dim', text: `: ${event.why}` }) : ''));
      if (this.events.children.length > 200) this.events.lastElementChild.remove();
    }
    if (this.marks.length > 2000) this.marks.splice(0, 500);
  }

  draw(frame, now, clockMs) {
    const [c, width, height] = fit(this.canvas), col = colours();
    const left = 34, top = 14, period = frame.period || 10;
    // A little more than the time there is; more where a hop took more.
    let high = 1.25 * period;
    for (const [, time] of this.dots) if (time > high) high = time;
    high = Math.min(high, 4 * period);
    const x = (at) => left + (at - (now - HOP_SECONDS)) / HOP_SECONDS * (width - left);
    const y = (ms) => height - Math.min(ms, high) / high * (height - top);
    c.fillStyle = col.well; c.fillRect(0, 0, width, height);
    c.fillStyle = col.line;
    for (let second = Math.ceil((now - HOP_SECONDS) / 5) * 5; second <= now; second += 5) c.fillRect(x(second), 0, 1, height);
    c.font = FONT; c.textAlign = 'right'; c.textBaseline = 'middle';
    c.fillStyle = col.dim;
    c.fillText(`${period.toFixed(1)}`, left - 5, y(period));
    c.fillText(`${(period / 2).toFixed(1)}`, left - 5, y(period / 2));
    c.fillText('ms', left - 5, height - 7);
    c.fillStyle = col.line; c.fillRect(left, y(period / 2), width - left, 1);
    c.fillStyle = col.bad; c.globalAlpha = 0.8; c.fillRect(left, y(period) - 0.5, width - left, 1); c.globalAlpha = 1;
    c.textAlign = 'left'; c.fillText('one hop of time', left + 5, y(period) - 7);
    for (const [at, time] of this.dots) {
      c.fillStyle = time > period ? col.bad : time > 0.75 * period ? col.warn : col.good;
      c.fillRect(x(at) - 1, y(time) - 1, 2, 2);
    }
    for (const event of this.marks) {
      if (event.at < now - HOP_SECONDS) continue;
      const place = x(event.at);
      c.fillStyle = event.kind === 'xrun' ? col.warn : col.bad;
      c.fillRect(place - 0.75, 0, 1.5, height);
      c.beginPath(); c.moveTo(place - 5, 0); c.lineTo(place + 5, 0); c.lineTo(place, 8); c.fill();
    }
    if (clockMs - this.saidAt < 200) return;
    this.saidAt = clockMs;
    const f = this.figures;
    f.hops.textContent = frame.hops.toLocaleString('en').replaceAll(',', ' ');
    for (const key of ['late', 'xruns', 'covered']) { f[key].textContent = frame[key]; f[key].classList.toggle('alarming', frame[key] > 0); }
    f.silentMs.textContent = `${frame.silentMs} ms`; f.silentMs.classList.toggle('alarming', frame.silentMs > 0);
    for (const key of ['p50', 'p99', 'max']) f[key].textContent = `${frame[key].toFixed(2)} ms`;
    this.words.textContent = `${frame.p50.toFixed(1)} ms of ${period.toFixed(1)} ms, ${Math.round(100 * frame.p50 / period)} % of the time there is`;
  }
}

export function clock(seconds) {
  const whole = Math.floor(seconds);
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, '0')}.${Math.floor(10 * (seconds - whole))}`;
}

// --- latency -------------------------------------------------------------------------------------------------------------

export function showLatency(report, { sum, bar, parts, glance }) {
  const total = `${report.total_ms.toFixed(1)} ms`;
  sum.textContent = `${total}, ${report.total_samples} samples at ${report.samplerate} Hz`;
  glance.textContent = total;
  bar.replaceChildren(); parts.replaceChildren();
  let index = 0;
  for (const part of report.parts) {
    const colour = `var(--stem-${(index + 4) % COLOURS})`;
    const name = make('td', {}, make('i', { 'aria-hidden': 'true' }), part.name);
    if (part.samples) {
      const piece = make('i');
      piece.style.flex = `${part.ms} 0 0`; piece.style.background = colour;
      bar.append(piece);
      name.firstElementChild.style.background = colour;
      index += 1;
    }
    parts.append(make('tr', part.samples ? {} : { class: 'none' },
      name, make('td', { class: 'number', text: `${part.ms.toFixed(1)} ms` }), make('td', { class: 'why', text: part.why })));
  }
}


