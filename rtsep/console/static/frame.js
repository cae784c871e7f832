// The binary frame, as rtsep/console/watch.py writes it.

const HEAD = 4 + 4 + 8 + 8 + 6 * 4 + 4 * 4;

export function readFrame(buffer) {
  const view = new DataView(buffer);
  const stems = view.getUint8(1), bands = view.getUint8(2);
  const u32 = (i) => view.getUint32(24 + 4 * i, true);
  const f32 = (i) => view.getFloat32(48 + 4 * i, true);
  const levels = [];
  for (let i = 0; i < 2 * stems + 2; i++) levels.push(view.getInt16(HEAD + 2 * i, true) / 100);
  let at = HEAD + 2 * (2 * stems + 2);
  const count = view.getUint16(at, true);
  const hopTimes = [];
  for (let i = 0; i < count; i++) hopTimes.push(view.getUint16(at + 2 + 2 * i, true) / 100);
  at += 2 + 2 * count;
  return {
    number: view.getUint32(4, true),
    position: view.getFloat64(8, true),
    column: view.getFloat64(16, true),
    hops: u32(0), late: u32(1), xruns: u32(2), covered: u32(3), clipped: u32(4), silentMs: u32(5),
    p50: f32(0), p99: f32(1), max: f32(2), period: f32(3),
    peaks: levels.slice(0, stems), rms: levels.slice(stems, 2 * stems),
    masterPeak: levels[2 * stems], masterRms: levels[2 * stems + 1],
    hopTimes, bands,
    spectra: bands ? new Uint8Array(buffer, at, stems * bands) : null,
  };
}
