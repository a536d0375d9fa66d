"use strict";
// The page: what the events tell, put where it belongs. Text is only ever set as text, so that a file may be called anything.

const $ = (id) => document.getElementById(id);
const told = { status: null, until: 0, recent: null, out: null, servable: true, last: null };
const pictures = new Map();
const PICTURE_MILLISECONDS = 1500;
const DECISIONS_SHOWN = 80;

function make(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name === "class") element.className = value;
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

const fill = (element, ...children) => element.replaceChildren(...children);
const base = (path) => path.slice(path.lastIndexOf("/") + 1);
const count = (value) => (value || 0).toLocaleString();
const clock = (at) => new Date(at * 1000).toLocaleTimeString([], { hour12: false });

function duration(seconds) {
  if (seconds < 90) return Math.round(seconds) + " s";
  if (seconds < 5400) return Math.round(seconds / 60) + " min";
  return seconds < 172800 ? (seconds / 3600).toFixed(1) + " h" : Math.round(seconds / 86400) + " days";
}

function say(text, bad) {
  const element = $("said");
  element.hidden = !text;
  element.textContent = text || "";
  element.classList.toggle("bad", Boolean(bad));
}

async function act(button, method, path, body) {
  button.disabled = true;
  try {
    const answer = await fetch(path, { method, headers: body ? { "Content-Type": "application/json" } : {}, body: body && JSON.stringify(body) });
    const found = await answer.json().catch(() => ({}));
    if (answer.status === 401) location.assign("/login");
    if (!answer.ok) say(found.error ? found.error.message : "It did not work: " + answer.status, true);
    else say(found.message || "Done.");
  } catch (error) {
    say("The gateway does not answer.", true);
  } finally {
    button.disabled = false;
  }
}

// ---- at this moment ----------------------------------------------------------------------------

function rate(status) {
  const totals = status.totals, settled = totals.done + totals.cached + totals.failed + totals.quarantined;
  const now = { at: status.at, settled, pid: status.pid };
  const past = (told.past = (told.past || []).filter((each) => now.at - each.at < 4 && each.pid === now.pid));
  past.push(now);
  const seconds = now.at - past[0].at;
  return seconds > 0 ? (now.settled - past[0].settled) / seconds : 0;
}

function onStatus(status) {
  const speed = rate(status);
  told.status = status;
  store(status.at, status.used_bytes, status.queue.pending + status.queue.leased, speed,
    status.workers.map((worker) => ({ rss: worker.rss_bytes || null, batch: worker.batch_size })));
  const state = $("state");
  state.textContent = status.draining ? "draining" : status.paused ? "paused: " + status.paused : "serving";
  state.className = "chip " + (status.draining || status.paused ? "warn" : "good");
  const level = $("level");
  level.textContent = "memory " + status.level;
  level.className = "chip " + ({ normal: "good", elevated: "good", warning: "warn" }[status.level] || "bad");
  $("since").textContent = "version " + status.version + ", up " + duration(status.uptime_seconds);
  const pause = $("pause");
  pause.textContent = status.paused ? "Resume" : "Pause";
  pause.dataset.path = status.paused ? "/resume" : "/pause";
  if (pause.dataset.ready !== "yes") { pause.disabled = false; pause.dataset.ready = "yes"; }
  const share = status.budget_bytes ? status.used_bytes / status.budget_bytes : 0;
  $("used").textContent = human(status.used_bytes);
  $("budget").textContent = Math.round(share * 100) + " % of " + human(status.budget_bytes);
  bar($("used-bar"), share, share >= 0.9 ? "bad" : share >= 0.8 ? "warn" : "");
  const totals = status.totals;
  $("rate").textContent = number(speed) + " /s";
  $("done").textContent = count(totals.done) + " done, " + count(totals.cached) + " cached, " + count(totals.failed + totals.quarantined) + " failed";
  $("queue").textContent = count(status.queue.pending + status.queue.leased);
  $("leased").textContent = count(status.queue.leased) + " in the hands of workers";
  $("recycles").textContent = count(totals.recycles + totals.restarts);
  $("deaths").textContent = count(totals.recycles) + " recycled, " + count(totals.restarts) + " died; batches shrunk " + count(totals.batch_shrinks) + " times";
  lines.budget = status.budget_bytes;
  lines.soft = Math.max(0, ...status.workers.map((worker) => worker.soft_bytes));
  lines.hard = Math.max(0, ...status.workers.map((worker) => worker.hard_bytes));
  fill($("workers"), ...status.workers.map(worker));
  redraw(status.workers.length);
  told.last = Date.now();
}

function bar(element, share, kind) {
  element.classList.remove("warn", "bad");
  if (kind) element.classList.add(kind);
  element.firstElementChild.style.width = Math.min(100, Math.max(0, share * 100)) + "%";
}

function worker(found) {
  const gauge = make("div", { class: "bar" }, make("i"));
  if (found.hard_bytes) {
    bar(gauge, found.rss_bytes / found.hard_bytes, found.rss_bytes >= found.soft_bytes ? "warn" : "");
    const soft = make("b", { title: "soft limit" });
    soft.style.left = Math.min(100, (found.soft_bytes / found.hard_bytes) * 100) + "%";
    gauge.append(soft);
  }
  const death = found.last_death, fresh = death && told.status.at - death.at < 10;
  const dot = make("span", { class: "quiet" }, "batch " + found.batch_size + " · " + count(found.items_done) + " done");
  const name = make("strong", {}, "Worker " + found.slot);
  name.style.color = series(found.slot);
  return make("div", { class: "worker" + (fresh ? " hit" : ""), "data-slot": found.slot },
    make("div", { class: "line" }, name, make("span", { class: "quiet" }, found.state.toLowerCase() + (found.pid ? ", pid " + found.pid : "")), make("span", { class: "push" }), dot),
    gauge,
    make("div", { class: "quiet" }, human(found.rss_bytes) + (found.hard_bytes ? ", soft " + human(found.soft_bytes) + ", hard " + human(found.hard_bytes) : "")),
    make("div", { class: "now" }, picture(found), make("span", { class: "name" }, found.current ? base(found.current) : "–")),
    make("div", { class: "quiet death" }, found.recycles + " recycled, " + found.restarts + " died" + (death ? "; last death " + clock(death.at) + ": " + death.cause : "")),
    found.note ? make("div", { class: "quiet" }, found.note) : null);
}

function picture(found) {
  // A new picture at most every second and a half: a fast gallery would be a flood of requests.
  let kept = pictures.get(found.slot);
  if (!kept) { kept = { box: make("div", { class: "picture" }), path: null, at: 0 }; pictures.set(found.slot, kept); }
  const path = found.current_b64 ? null : found.current;
  if (path && path !== kept.path && Date.now() - kept.at > PICTURE_MILLISECONDS) {
    kept.path = path;
    kept.at = Date.now();
    const image = make("img", { alt: "", src: "/picture?path=" + encodeURIComponent(path), onerror: () => image.remove() });
    fill(kept.box, image);
  }
  return kept.box;
}

// ---- batches, results, quarantine -----------------------------------------------------------------

function onBatches(batches) {
  const rows = batches.map((batch) => {
    const counts = batch.counts, settled = counts.done + counts.cached + counts.failed + counts.quarantined + counts.cancelled;
    const gauge = make("div", { class: "bar wide", role: "progressbar", "aria-valuemin": 0, "aria-valuemax": batch.items, "aria-valuenow": settled, "aria-label": "batch " + batch.batch }, make("i"));
    bar(gauge, batch.items ? settled / batch.items : 0, counts.failed + counts.quarantined ? "warn" : "");
    const goes = !["finished", "cancelled"].includes(batch.state);
    const failed = counts.failed + counts.quarantined;
    const state = batch.state === "accepted" && (settled || counts.leased) ? "running" : batch.state;
    const text = state + " · " + batch.recipe + " · " + count(settled) + " of " + count(batch.items) + (failed ? " · " + count(failed) + " failed" : "");
    const path = "/batches/" + encodeURIComponent(batch.batch);
    return make("div", { "data-batch": batch.batch },
      make("div", { class: "what" }, make("strong", {}, batch.batch), " ", make("span", { class: "quiet" }, text)),
      make("div", { class: "acts" },
        goes ? make("button", { type: "button", onclick: (event) => act(event.target, "DELETE", path) }, "Cancel") : null,
        !goes && failed ? make("button", { type: "button", onclick: (event) => act(event.target, "POST", path + "/retry", {}) }, "Retry failed") : null),
      gauge);
  });
  keep($("batches"), rows, "No batch so far. Submit one with supervisor submit, or POST /batches.");
}

function keep(element, rows, empty) {
  // A button that has the focus stays where it is, or the keyboard would lose its place at every event.
  if (element.contains(document.activeElement) && document.activeElement !== element && rows.length === element.childElementCount) {
    const same = rows.every((row, place) => row.textContent === element.children[place].textContent);
    if (same) return;
  }
  fill(element, ...(rows.length ? rows : [make("p", { class: "empty" }, empty)]));
}

function outputOf(result, out) {
  const fitting = (result.outputs || []).filter((each) => each.path && !each.path_b64 && each.width && out && each.path.startsWith(out + "/"));
  fitting.sort((one, other) => one.width * one.height - other.width * other.height);
  return fitting[0];
}

function onRecent(recent) {
  const strip = $("recent");
  if (recent.out !== told.out) { told.out = recent.out; told.servable = true; }
  const shown = recent.results.map((result) => [result, outputOf(result, recent.out)]).filter(([, output]) => output);
  const wanted = shown.map(([, output]) => output.path).join("\n");
  if (!told.servable || !shown.length) {
    fill(strip, make("p", { class: "empty" }, !told.servable ? "Pictures are shown of outputs below the directories in http_roots." : "Nothing has been made so far."));
  } else if (strip.dataset.shown !== wanted) {
    fill(strip, ...shown.map(([result, output]) => {
      const url = "/batches/" + encodeURIComponent(recent.batch) + "/outputs/" + output.path.slice(recent.out.length + 1).split("/").map(encodeURIComponent).join("/");
      return make("a", { href: url, title: base(result.path) }, make("img", { loading: "lazy", src: url, alt: base(result.path), onerror: (event) => {
        event.target.parentElement.remove();
        if (!strip.querySelector("img")) { told.servable = false; onRecent(recent); }
      } }));
    }));
  }
  strip.dataset.shown = wanted;
  keep($("failures"), recent.failures.map((result) => make("div", {},
    make("div", { class: "what" }, make("strong", {}, base(result.path)), " ", make("span", { class: "chip bad" }, result.error ? result.error.kind : result.state)),
    make("div", { class: "quiet wide" }, result.error ? result.error.message : ""))), "None in this batch.");
}

function onQuarantine(entries) {
  const rows = entries.map((entry) => {
    const image = entry.path_b64 ? { path_b64: entry.path_b64 } : { path: entry.path };
    const button = (text, verb) => make("button", { type: "button", "data-verb": verb, "aria-label": text + " " + base(entry.path),
      onclick: (event) => act(event.target, "POST", "/quarantine/" + verb, image) }, text);
    return make("div", { "data-path": entry.path },
      make("div", { class: "what" }, make("strong", {}, base(entry.path)), " ", make("span", { class: "chip bad" }, entry.kind), " ", make("span", { class: "quiet" }, "since " + new Date(entry.at * 1000).toLocaleString([], { hour12: false }))),
      make("div", { class: "acts" }, button("Retry", "retry"), button("Drop", "drop")),
      make("div", { class: "quiet wide" }, entry.message));
  });
  keep($("quarantine"), rows, "Empty: no image has killed its workers.");
}

// ---- memory, temp, cache, decisions ---------------------------------------------------------------

function onMemory(memory) {
  lines.levels = ["elevated", "warning", "critical", "emergency"].map((name) => [name, memory.thresholds[name + "_bytes"]]);
}

function onTemp(temp) {
  $("temp").textContent = human(temp.bytes);
  $("temp-more").textContent = count(temp.files) + " files; " + human(temp.reaped_bytes_total) + " reaped so far";
}

function onCache(cache) {
  $("cache").textContent = Math.round(cache.hit_rate * 100) + " % hits";
  $("cache-more").textContent = count(cache.entries) + " results, " + human(cache.bytes) + " of " + human(cache.limit_bytes);
}

function onHistory(page) {
  page.at.forEach((at, row) => store(at, page.used_bytes[row], null, null,
    page.workers.map((worker) => ({ rss: worker.rss_bytes[row], batch: worker.batch_size[row] }))));
  const kinds = { recycle: "recycle", death: "death", kill: "death", level: "level" };
  for (const [at, kind, slot] of page.marks) if (kinds[kind]) mark(at, kinds[kind], slot);
  told.until = page.until;
}

function onDecisions(decisions) {
  const list = $("decisions");
  for (const decision of decisions) {
    const kind = { recycle: "recycle", death: "death", hard_limit: "death", level: "level" }[decision.kind];
    if (kind && decision.at > told.until) mark(decision.at, kind, decision.slot);
    list.prepend(make("li", { class: decision.kind }, make("time", {}, clock(decision.at)), make("span", {}, decision.message)));
  }
  while (list.childElementCount > DECISIONS_SHOWN) list.lastElementChild.remove();
}

function onGone(gone) {
  $("state").textContent = "no supervisor";
  $("state").className = "chip bad";
  say(gone.message, true);
}

// ---- the events -----------------------------------------------------------------------------------

function listen() {
  const source = new EventSource("/events");
  const on = (name, function_) => source.addEventListener(name, (event) => function_(JSON.parse(event.data)));
  on("status", (status) => { if (told.last === null) say(""); onStatus(status); });
  on("batches", onBatches); on("recent", onRecent); on("quarantine", onQuarantine); on("memory", onMemory);
  on("temp", onTemp); on("cache", onCache); on("decisions", onDecisions); on("gone", onGone);
  source.onopen = () => { told.last = null; };
  source.onerror = () => {
    $("state").textContent = "not connected";
    $("state").className = "chip bad";
    fetch("/status").then((answer) => { if (answer.status === 401) location.assign("/login"); }).catch(() => {});
    if (source.readyState === EventSource.CLOSED) setTimeout(listen, 3000);
  };
}

async function begin() {
  $("pause").addEventListener("click", (event) => act(event.target, "POST", event.target.dataset.path, event.target.dataset.path === "/pause" ? { reason: "paused at the dashboard" } : null));
  $("ranges").addEventListener("click", (event) => {
    if (!event.target.dataset.seconds) return;
    spanSeconds = Number(event.target.dataset.seconds);
    for (const button of $("ranges").children) button.setAttribute("aria-pressed", String(button === event.target));
    if (told.status) redraw(told.status.workers.length);
  });
  const ask = (path) => fetch(path).then((answer) => (answer.ok ? answer.json() : null)).catch(() => null);
  const [history, decisions] = await Promise.all([ask("/history?seconds=3600&limit=1800"), ask("/decisions?limit=60")]);
  if (history) onHistory(history);
  onDecisions(decisions || []);
  listen();
}

begin();
