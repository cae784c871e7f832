// The page's connection to the console process, and what comes over it.

import { readFrame } from './frame.js';
import { Plugins } from './plugins.js';
import { STEADY } from './slider.js';
import { Mixer } from './strips.js';
import { Hops, Roll, Spectra, clock, forgetColours, showLatency } from './views.js';

const $ = (id) => document.getElementById(id);
const PROTOCOL = 'rtsep.console.1';
const GATHER_MS = 12;

// --- token: behind the # of the link, then only in this tab ------------------------------------------------------------------

// Storage may be forbidden in this browser; then things are only as long as the page.
const kept = (storage, key) => { try { return window[storage].getItem(key); } catch { return null; } };
const keep = (storage, key, value) => { try { window[storage].setItem(key, value); } catch { /* forbidden */ } };

const given = new URLSearchParams(location.hash.slice(1)).get('token');
if (given) {
  keep('sessionStorage', 'rtsep-token', given);
  history.replaceState(null, '', location.pathname);
}
const token = given || kept('sessionStorage', 'rtsep-token');

// --- theme -------------------------------------------------------------------------------------------------------------------

function setTheme(name) {
  if (name === 'auto') delete document.documentElement.dataset.theme; else document.documentElement.dataset.theme = name;
  forgetColours();
  spectra.recolour();
}

// --- parts -------------------------------------------------------------------------------------------------------------------

const plugins = new Plugins($('plugin'), sendPlugin, wantPlugin);
const mixer = new Mixer(
  {
    strips: $('strips'), others: $('others'), panel: $('controls'), notes: $('notes-controls'), transport: $('transport'),
    record: $('record-button'),
  },
  want, (boxes) => plugins.place(boxes),
);
const roll = new Roll($('roll'), $('roll-words'));
const spectra = new Spectra($('spectra'));
const hops = new Hops($('hop-chart'), $('hop-words'), $('counters'), $('events'));

$('theme').value = kept('localStorage', 'rtsep-theme') || 'auto';
setTheme($('theme').value);
$('theme').addEventListener('change', () => { keep('localStorage', 'rtsep-theme', $('theme').value); setTheme($('theme').value); });
matchMedia('(prefers-color-scheme: light)').addEventListener('change', () => setTheme($('theme').value));

// --- connection --------------------------------------------------------------------------------------------------------------

// Frames come thirty times a second; a connection that was cut without a word is found out by their absence.
const SILENT_MS = 5000, ANSWER_MS = 4000;
let socket = null, tries = 0, ended = false, heardAt = 0;

function say(state, text) {
  $('connection').dataset.state = state;
  if ($('connection').textContent !== text) $('connection').textContent = text;
}

let noticeTimer = 0;
function notice(text, ms = 0) {
  $('notice').textContent = text;
  $('notice').hidden = !text;
  clearTimeout(noticeTimer);
  if (ms) noticeTimer = setTimeout(() => notice(''), ms);
}

function connect() {
  const protocols = token ? [PROTOCOL, `token.${token}`] : [PROTOCOL];
  const current = socket = new WebSocket(`${location.protocol === 'https:' ? 'wss' : 'ws'}://${location.host}/live`, protocols);
  current.binaryType = 'arraybuffer';
  heardAt = performance.now();
  current.addEventListener('open', () => {
    tries = 0;
    heardAt = performance.now();
    if (document.hidden) current.send(JSON.stringify({ visible: false }));
  });
  current.addEventListener('message', ({ data }) => {
    if (current !== socket) return;
    heardAt = performance.now();
    if (typeof data === 'string') take(JSON.parse(data)); else takeFrame(data);
  });
  current.addEventListener('close', (event) => { if (current === socket) lost(event.code); });
}

setInterval(() => {
  if (document.hidden || socket?.readyState !== WebSocket.OPEN || performance.now() - heardAt < SILENT_MS) return;
  const silent = socket;
  socket = null;  // its end may take minutes to come
  silent.close();
  lost(0);
}, 1000);

async function lost(code) {
  say('lost', ended ? 'Engine ended' : 'Not connected');
  tries += 1;
  if (code === 1013) notice('Too many pages are open at this console, or the connection is too slow.');
  try {
    const answer = await fetch('check', {
      headers: token ? { authorization: `Bearer ${token}` } : {}, signal: AbortSignal.timeout(ANSWER_MS),
    });
    if (answer.status === 401) {
      notice('This console needs the token of its link: open the link that the terminal shows.');
      return;
    }
  } catch { if (!ended) notice('The console does not answer; trying again.'); }
  setTimeout(connect, Math.min(250 * 2 ** Math.min(tries, 5), 5000));
}

function take(message) {
  if (message.hello) {
    const { about, table, status, notes, events } = message.hello;
    plugins.set(message.hello.plugins);
    ended = false;
    notice('');
    say('open', 'Connected');
    showAbout(about);
    latest = null;
    mixer.setTable(about, table);
    roll.clear(about.stems); roll.add(notes);
    $('spectra-panel').hidden = !about.spectra;
    spectra.clear(about.stems);
    hops.clear(); hops.mark(events);
    if (status.latency) showStatus(status);
  }
  if (message.about) showAbout(message.about);
  if (message.values) mixer.setValues(message.values);
  if (message.table && mixer.about) mixer.changeTable(message.table);
  if (message.status) showStatus(message.status);
  if (message.plugins) plugins.set(message.plugins);
  if (message.notes) roll.add(message.notes);
  if (message.events) hops.mark(message.events);
  if (message.refused) {
    notice(message.refused.message, 6000);
    if (message.refused.value !== undefined && message.refused.value !== null) mixer.setValues({ [message.refused.path]: message.refused.value });
  }
}

function showAbout(about) {
  $('about').textContent = `${about.model} ${about.version} · ${about.samplerate / 1000} kHz · block ${about.block} · hop ${about.hop}`
    + (about.model_samplerate === about.samplerate ? '' : ` at ${about.model_samplerate / 1000} kHz`);
  document.title = `${about.model} · rtsep console`;
}

function showStatus(status) {
  showLatency(status.latency, { sum: $('latency-sum'), bar: $('latency-bar'), parts: $('latency-parts'), glance: $('glance-latency') });
  const notes = status.notes;
  $('roll-panel').hidden = notes === null;
  if (notes) {
    const delays = [...new Set(Object.values(notes.delays_ms).map(ms => ms.toFixed(0)))].sort((a, b) => a - b);
    $('roll-delay').textContent = notes.running ? `known ${delays.join(' or ')} ms after the sound` : 'ended; the sound goes on';
  }
  if (status.take) showTake(status.take);
  ended = status.ended;
  if (ended) say('lost', 'Engine ended');
}

// --- the take that runs --------------------------------------------------------------------------------------------------------

let taking = null;

function showTake(now) {
  const before = taking;
  taking = now;
  if (now.error && now.error !== before?.error) notice(now.error);
  if (now.since_s === null) $('record-words').textContent = now.done ? `${now.name} kept` : '';
  else drawTake(latest?.position ?? now.since_s);
}

function drawTake(position) {
  if (taking && taking.since_s !== null) $('record-words').textContent = clock(Math.max(0, position - taking.since_s));
}

// --- what the person wants ---------------------------------------------------------------------------------------------------

let wanted = {}, wantedOfPlugins = new Map(), gathering = 0, sentAt = 0;

function want(path, value) {
  wanted[path] = value;
  gather();
}

function wantPlugin(key, command) {
  wantedOfPlugins.set(key, command);
  gather();
}

function sendPlugin(command) { wantPlugin(Symbol('once'), command); }

function gather() {
  if (gathering) return;
  const wait = GATHER_MS - (performance.now() - sentAt);
  if (wait <= 0) flush(); else gathering = setTimeout(flush, wait);
}

function flush() {
  gathering = 0;
  sentAt = performance.now();
  const set = wanted, commands = wantedOfPlugins;
  wanted = {};
  wantedOfPlugins = new Map();
  if (socket?.readyState === WebSocket.OPEN) {
    if (Object.keys(set).length) socket.send(JSON.stringify({ set }));
    for (const plugin of commands.values()) socket.send(JSON.stringify({ plugin }));
  } else notice('Not connected: nothing was changed.', 4000);
}

document.addEventListener('visibilitychange', () => {
  heardAt = performance.now();
  if (socket?.readyState === WebSocket.OPEN) socket.send(JSON.stringify({ visible: !document.hidden }));
});

// --- frames ------------------------------------------------------------------------------------------------------------------

const SCROLL_MS = 60, CHART_MS = 240, STEADY_MS = 1000;
let latest = null, latestAt = 0, drawn = null, scrolledAt = 0, chartedAt = 0;

function takeFrame(data) {
  const frame = readFrame(data);
  latest = frame;
  latestAt = performance.now();
  spectra.add(frame);
  hops.add(frame);
  if (!drawn) drawn = requestAnimationFrame(draw);
}

function draw(at) {
  drawn = null;
  if (!latest) return;
  const now = latest.position + Math.min(performance.now() - latestAt, 100) / 1000;
  mixer.draw(latest, at);
  // Meters follow every frame; pictures are dearer. Who wants things to keep still gets a new one a second.
  const calm = STEADY.matches ? STEADY_MS : 0;
  if (at - scrolledAt >= Math.max(SCROLL_MS, calm)) {
    scrolledAt = at;
    if (!$('roll-panel').hidden) roll.draw(now, at);
    spectra.draw(now);
  }
  if (at - chartedAt < Math.max(CHART_MS, calm)) return;
  chartedAt = at;
  hops.draw(latest, now, at);
  drawTake(now);
  $('glance-late').textContent = latest.late;
  $('glance-late').classList.toggle('alarming', latest.late > 0);
  $('glance-xruns').textContent = latest.xruns;
  $('glance-xruns').classList.toggle('alarming', latest.xruns > 0);
}

connect();
