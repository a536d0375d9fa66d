"use strict";
// The curves: a store of what was seen, and four charts of it. Colours come from the page's style, so that light and dark
// are one definition; the store is bounded, whoever leaves the page open.

const KEPT = 7200;
const STEPS = [1, 2, 5, 10, 20, 50, 100, 200, 500].flatMap((step) => [step * 1048576, step * 1073741824]).sort((one, other) => one - other);
const seen = { at: [], used: [], waiting: [], rate: [], rss: [], batch: [] };
const marks = [];
let workersShown = 0, lines = { levels: [], soft: 0, hard: 0, budget: 0 }, spanSeconds = 120, charts = {};

const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const series = (slot) => css("--s" + (slot % 8));

function human(bytes) {
  if (bytes === null || bytes === undefined) return "–";
  const units = ["bytes", "KB", "MB", "GB", "TB"];
  let value = bytes, unit = 0;
  while (Math.abs(value) >= 1000 && unit < units.length - 1) { value /= 1024; unit += 1; }
  return unit === 0 ? value.toFixed(0) + " bytes" : (Math.abs(value) < 10 ? value.toFixed(1) : value.toFixed(0)) + " " + units[unit];
}

function store(at, used, waiting, rate, workers) {
  const last = seen.at[seen.at.length - 1];
  if (last !== undefined && at <= last) return;
  while (seen.rss.length < workers.length) {
    seen.rss.push(seen.at.map(() => null));
    seen.batch.push(seen.at.map(() => null));
  }
  seen.at.push(at); seen.used.push(used); seen.waiting.push(waiting); seen.rate.push(rate);
  seen.rss.forEach((curve, slot) => curve.push(workers[slot] ? workers[slot].rss : null));
  seen.batch.forEach((curve, slot) => curve.push(workers[slot] ? workers[slot].batch : null));
  if (seen.at.length > KEPT) {
    for (const curve of [seen.at, seen.used, seen.waiting, seen.rate, ...seen.rss, ...seen.batch]) curve.shift();
  }
}

function mark(at, kind, slot) {
  marks.push({ at, kind, slot });
  marks.sort((one, other) => one.at - other.at);
  if (marks.length > 1000) marks.shift();
}

function drawMarks(u) {
  const from = u.scales.x.min, to = u.scales.x.max, ctx = u.ctx;
  const colours = { recycle: css("--warn"), death: css("--bad"), level: css("--quiet") };
  ctx.save();
  ctx.lineWidth = 2 * devicePixelRatio;
  for (const each of marks) {
    if (each.at < from || each.at > to) continue;
    const x = u.valToPos(each.at, "x", true);
    ctx.strokeStyle = colours[each.kind];
    ctx.globalAlpha = 0.75;
    ctx.beginPath(); ctx.moveTo(x, u.bbox.top); ctx.lineTo(x, u.bbox.top + u.bbox.height); ctx.stroke();
  }
  ctx.restore();
}

function drawLine(u, value, colour, text, place = 0) {
  if (!value || value > u.scales.y.max) return;
  const y = u.valToPos(value, "y", true), ctx = u.ctx;
  ctx.save();
  ctx.strokeStyle = ctx.fillStyle = colour;
  ctx.lineWidth = devicePixelRatio;
  ctx.setLineDash([5 * devicePixelRatio, 4 * devicePixelRatio]);
  ctx.beginPath(); ctx.moveTo(u.bbox.left, y); ctx.lineTo(u.bbox.left + u.bbox.width, y); ctx.stroke();
  ctx.font = 11 * devicePixelRatio + "px system-ui, sans-serif";
  ctx.textAlign = "right";
  ctx.fillText(text, u.bbox.left + u.bbox.width - (4 + 62 * place) * devicePixelRatio, y - 3 * devicePixelRatio);
  ctx.restore();
}

function drawLevels(u) {
  drawMarks(u);
  const colours = { elevated: "--quiet", warning: "--warn" };
  lines.levels.forEach(([name, value], place) => drawLine(u, value, css(colours[name] || "--bad"), name, place));
}

function drawLimits(u) {
  drawMarks(u);
  drawLine(u, lines.soft, css("--warn"), "soft");
  drawLine(u, lines.hard, css("--bad"), "hard");
}

function options(element, curves, value, draw, high) {
  const axis = { stroke: css("--quiet"), grid: { stroke: css("--line"), width: 1 }, ticks: { stroke: css("--line") } };
  const time = { ...axis, space: 70, values: (u, ticks) => ticks.map((at) => new Date(at * 1000).toLocaleTimeString([], { hour12: false })) };
  const left = { ...axis, size: 62, values: (u, ticks) => ticks.map(value) };
  if (value === human) left.incrs = STEPS;
  const right = { ...left, scale: "w", side: 1, size: 50, grid: { show: false } };
  return {
    width: Math.max(240, element.clientWidth), height: 200, padding: [8, 8, 0, 0],
    scales: { x: { time: true, range: () => range() }, y: { range: (u, low, top) => [0, Math.max(high(), (top || 0) * 1.1)] },
      w: { range: (u, low, top) => [0, Math.max(1, (top || 0) * 1.1)] } },
    axes: [time, left, ...(curves.some((curve) => curve.scale === "w") ? [right] : [])],
    series: [{}, ...curves.map((curve) => ({ width: 1.5, points: { show: false }, spanGaps: false, value: (u, v) => value(v), ...curve }))],
    hooks: { draw: [draw] }, legend: { live: true }, cursor: { points: { size: 6 } },
  };
}

function range() {
  const now = seen.at.length ? seen.at[seen.at.length - 1] : Date.now() / 1000;
  return [now - spanSeconds, now];
}

const number = (value) => (value === null || value === undefined ? "–" : value >= 100 ? Math.round(value).toLocaleString() : String(Math.round(value * 10) / 10));

function build() {
  for (const chart of Object.values(charts)) chart.destroy();
  const at = (name) => document.getElementById("chart-" + name);
  const slots = [...Array(workersShown).keys()];
  const perWorker = slots.map((slot) => ({ label: "worker " + slot, stroke: series(slot) }));
  const make = (name, curves, value, draw, high) => new uPlot(options(at(name), curves, value, draw, high), data(name), at(name));
  charts = {
    total: make("total", [{ label: "used", stroke: css("--accent"), fill: css("--accent") + "22" }], human, drawLevels, () => lines.budget),
    workers: make("workers", perWorker, human, drawLimits, () => lines.hard * 1.05),
    batch: make("batch", perWorker.map((curve) => ({ ...curve, paths: uPlot.paths.stepped({ align: 1 }) })), number, drawMarks, () => 4),
    rate: make("rate", [{ label: "images/s", stroke: series(0) }, { label: "waiting", stroke: series(1), scale: "w" }], number, drawMarks, () => 1),
  };
}

function data(name) {
  if (name === "total") return [seen.at, seen.used];
  if (name === "workers") return [seen.at, ...seen.rss.slice(0, workersShown)];
  if (name === "batch") return [seen.at, ...seen.batch.slice(0, workersShown)];
  return [seen.at, seen.rate, seen.waiting];
}

function redraw(workers) {
  if (workers !== workersShown || !charts.total) { workersShown = workers; build(); return; }
  for (const [name, chart] of Object.entries(charts)) chart.setData(data(name));
}

function fit() {
  for (const [name, chart] of Object.entries(charts)) {
    chart.setSize({ width: Math.max(240, document.getElementById("chart-" + name).clientWidth), height: 200 });
  }
}

addEventListener("resize", fit);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { if (charts.total) build(); });
