// The kernel table: sorted by a press on its head, searched by text, and by family from the bar of time.
const MOST_ROWS = 150;
const timed = D.run_us !== null;
const totalUs = S.reduce((sum, s) => sum + (s.us || 0), 0);
const meter = (part) => `<span class="meter"><i style="width:${Math.min(100, 100 * part).toFixed(0)}%"></i></span>`;
const COLUMNS = [
  { key: "index", title: "#", n: true, of: (r) => r.index, show: (r) => (r.count > 1 ? `× ${r.count}` : r.index) },
  { key: "op", title: "Step", of: (r) => r.op, show: (r) => `<i class="dot f-${r.family}"></i>${escaped(r.op)}` },
  ...(timed ? [
    { key: "us", title: "Time", n: true, of: (r) => r.us, show: (r) => micros(r.us) },
    { key: "part", title: "Of the run", n: true, of: (r) => r.us, show: (r) => `${((100 * r.us) / totalUs).toFixed(1)} %${meter(r.us / totalUs)}` },
    { key: "share", title: "Of the ceiling", n: true, of: (r) => r.share, show: (r) => `${Math.round(100 * r.share)} %${meter(r.share)}` },
  ] : []),
  { key: "kernel", title: "Kernel", cls: "k", of: (r) => r.kernel, show: (r) => escaped(r.kernel) },
  { key: "shape", title: "Shape", cls: "k", of: (r) => r.shape, show: (r) => escaped(r.shape) },
  { key: "dtype", title: "Type", of: (r) => r.dtype, show: (r) => escaped(r.dtype) },
  { key: "bytes", title: "Bytes", n: true, of: (r) => r.bytes, show: (r) => bytes(r.bytes) },
  { key: "flops", title: "Flop", n: true, of: (r) => r.flops, show: (r) => flops(r.flops) },
  { key: "origin", title: "Module", cls: "w", of: (r) => r.origin, show: (r) => escaped(r.origin) },
];
const single = S.map((s, i) => ({ ...s, count: 1, text: `${i} ${s.op} ${s.kernel} ${s.origin} ${s.dtype} ${s.shape} ${s.family}`.toLowerCase() }));
const view = { sort: timed ? "us" : "index", down: timed, all: false, family: "" };

function grouped(rows) {
  const groups = new Map();
  rows.forEach((r) => {
    const key = `${r.op}|${r.kernel}|${r.shape}|${r.dtype}`, g = groups.get(key);
    if (!g) groups.set(key, { ...r }); else { g.count += 1; g.us += r.us; g.bytes += r.bytes; g.flops += r.flops; g.best += r.us * r.share; }
    if (!g) groups.get(key).best = r.us * r.share;
  });
  return [...groups.values()].map((g) => ({ ...g, share: g.us ? g.best / g.us : 0, origin: g.count > 1 ? `${g.origin} and ${g.count - 1} more` : g.origin }));
}

function fillTable() {
  const words = byId("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  let rows = single.filter((r) => (!view.family || r.family === view.family) && words.every((w) => r.text.includes(w)));
  const matched = rows.length;
  if (byId("bykernel").checked) rows = grouped(rows);
  const column = COLUMNS.find((c) => c.key === view.sort), sign = view.down ? -1 : 1;
  rows.sort((a, b) => { const x = column.of(a), y = column.of(b); return sign * (typeof x === "string" ? x.localeCompare(y) : x - y) || a.index - b.index; });
  const shown = view.all ? rows : rows.slice(0, MOST_ROWS);
  document.querySelector("#steps tbody").innerHTML = shown.map((r) => `<tr data-step="${r.index}"${chosen.steps.has(r.index) ? ' class="lit"' : ""}>${COLUMNS.map((c) => `<td class="${c.cls || ""}${c.n ? " n" : ""}">${c.show(r)}</td>`).join("")}</tr>`).join("");
  document.querySelectorAll("#steps th").forEach((th) => { if (th.dataset.key === view.sort) th.setAttribute("aria-sort", view.down ? "descending" : "ascending"); else th.removeAttribute("aria-sort"); });
  byId("rows").textContent = `${matched} of ${S.length} steps${view.family ? `, ${view.family} only` : ""}`;
  byId("more").hidden = shown.length === rows.length;
  byId("more").textContent = `show all ${rows.length} rows`;
}

function startTable() {
  document.querySelector("#steps thead").innerHTML = `<tr>${COLUMNS.map((c) => `<th data-key="${c.key}"${c.n ? ' class="n"' : ""}><button type="button">${c.title}</button></th>`).join("")}</tr>`;
  document.querySelector("#steps thead").addEventListener("click", (event) => {
    const th = event.target.closest("th");
    if (!th) return;
    const column = COLUMNS.find((c) => c.key === th.dataset.key);
    view.down = view.sort === column.key ? !view.down : Boolean(column.n) && column.key !== "index";
    view.sort = column.key; fillTable();
  });
  document.querySelector("#steps tbody").addEventListener("click", (event) => { const tr = event.target.closest("tr"); if (tr) chooseStep(+tr.dataset.step, false); });
  byId("filter").addEventListener("input", later(80, fillTable));
  byId("bykernel").addEventListener("change", fillTable);
  byId("more").addEventListener("click", () => { view.all = true; fillTable(); });
  document.querySelectorAll(".timebar .pick").forEach((part) => part.addEventListener("click", () => {
    view.family = view.family === part.dataset.family ? "" : part.dataset.family;
    document.querySelectorAll(".timebar .pick").forEach((p) => p.classList.toggle("on", p.dataset.family === view.family));
    fillTable();
  }));
  watchers.push(() => document.querySelectorAll("#steps tbody tr").forEach((tr) => tr.classList.toggle("lit", chosen.steps.has(+tr.dataset.step))));
  fillTable();
}
