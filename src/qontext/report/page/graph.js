// The two graphs, one card a run of equal layers. A card draws itself when it is opened.
const BOX_W = 132, BOX_H = 30;
const cards = runs.map((layers, run) => ({ run, layers, shown: 0, zoom: 1, fitted: false, element: null }));
const short = (text, most) => (text.length > most ? text.slice(0, most - 1) + "…" : text);
const tail = (text, most) => (text.length > most ? "…" + text.slice(1 - most) : text);

function outside(rows, reads) {
  const at = new Map(rows.map((row, i) => [row, i])), extra = [];
  rows.forEach((row) => reads(row).forEach((r) => { if (!at.has(r)) { at.set(r, at.size); extra.push(r); } }));
  return extra;
}

// A line from the lower rim of one box to the upper rim of another, through points, smooth where it changes column.
function way(xy, line) {
  const [a, b, ...points] = line;
  let x = xy[2 * a], y = xy[2 * a + 1] + BOX_H / 2, d = `M${x} ${y}`;
  points.push(xy[2 * b], xy[2 * b + 1] - BOX_H / 2);
  for (let i = 0; i < points.length; i += 2) {
    const u = points[i], v = points[i + 1], m = (y + v) / 2;
    d += u === x ? `L${u} ${v}` : `C${x} ${m} ${u} ${m} ${u} ${v}`;
    x = u; y = v;
  }
  return d;
}

function picture(card, side) {
  const layer = L[card.layers[card.shown]], before = side === "before";
  const rows = before ? layer.nodes : layer.steps, p = D.pictures[card.run][side];
  const extra = outside(rows, before ? (i) => N.reads[i] : (i) => S[i].reads);
  const parts = p.lines.map((line) => `<path d="${way(p.xy, line)}"/>`);
  const boxes = [...rows, ...extra].map((row, i) => {
    const x = p.xy[2 * i], y = p.xy[2 * i + 1], inner = i < rows.length;
    let label, sub, cls, hint, id = "";
    if (!inner) {
      const input = typeof row === "string";
      label = input ? row : before ? W[N.op[row]] : S[row].op;
      sub = input ? "input" : "from " + L[before ? N.layer[row] : S[row].layer].title;
      cls = "ghost"; hint = input ? `input ${row}` : `${label} ${sub}`;
      if (!input) id = before ? ` data-node="${row}"` : ` data-step="${row}"`;
    } else if (before) {
      label = W[N.op[row]]; sub = W[N.origin[row]].split(".").slice(-2).join("."); hint = `${label}  ${W[N.type[row]]}  ${W[N.origin[row]]}`;
      cls = N.step[row] < 0 ? "gone" : ""; id = ` data-node="${row}"`;
    } else {
      label = S[row].op; sub = S[row].kernel; hint = `${label}  ${S[row].shape}  ${S[row].origin}`; id = ` data-step="${row}"`; cls = "";
    }
    const family = !inner ? "" : before ? "f-" + nodeFamily(row) : "f-" + S[row].family;
    const focus = inner ? ' tabindex="0" role="button"' : "";
    return `<g class="node ${cls}"${id}${focus} aria-label="${escaped(hint)}"><title>${escaped(hint)}</title><rect class="${family}" x="${x - BOX_W / 2}" y="${y - BOX_H / 2}" width="${BOX_W}" height="${BOX_H}" rx="${inner ? 5 : 15}"/><text x="${x}" y="${y - 2}" font-size="12">${escaped(short(label, 18))}</text><text class="sub" x="${x}" y="${y + 10}">${escaped(tail(sub, 26))}</text></g>`;
  });
  return `<svg viewBox="0 0 ${p.w} ${p.h}" width="${Math.round(p.w * card.zoom)}" height="${Math.round(p.h * card.zoom)}" font-family="inherit"><g class="lines">${parts.join("")}</g>${boxes.join("")}</svg>`;
}

function summaryOf(card) {
  const layers = card.layers.map((i) => L[i]), first = layers[0], last = layers[layers.length - 1];
  const title = layers.length > 1 ? `${first.title} to ${last.number}` : first.title;
  const us = layers.flatMap((l) => l.steps).reduce((sum, i) => sum + (S[i].us || 0), 0);
  const total = S.reduce((sum, s) => sum + (s.us || 0), 0);
  const time = total ? `, ${micros(us)} (${Math.round((100 * us) / total)} %)` : "";
  const times = layers.length > 1 ? `<span class="times">× ${layers.length}</span>` : "";
  return `<b>${escaped(title)}</b>${times}<span class="soft">${first.nodes.length} nodes → ${first.steps.length} step${first.steps.length === 1 ? "" : "s"}${layers.length > 1 ? " each" : ""}${time}</span>`;
}

function draw(card) {
  const body = card.element.querySelector(".body");
  if (!card.element.open) { body.textContent = ""; return; }
  const picker = card.layers.length > 1 ? `<label>Layer <select>${card.layers.map((l, i) => `<option value="${i}"${i === card.shown ? " selected" : ""}>${L[l].number}</option>`).join("")}</select></label>` : "";
  const layer = L[card.layers[card.shown]];
  body.innerHTML = `<div class="tools">${picker}<button type="button" data-zoom="0.8" aria-label="smaller">−</button><button type="button" data-zoom="1.25" aria-label="larger">+</button></div>
<div class="panes"><div class="pane"><h4>Imported, ${layer.nodes.length} nodes</h4><div class="scroll before">${picture(card, "before")}</div></div><div class="pane"><h4>Runs, ${layer.steps.length} steps</h4><div class="scroll after">${picture(card, "after")}</div></div></div>`;
  if (!card.fitted) fit(card, body);
  body.querySelectorAll(".scroll").forEach((pane) => { pane.scrollLeft = (pane.scrollWidth - pane.clientWidth) / 2; });
  light(card);
}

function fit(card, body) {
  const width = body.querySelector(".scroll").clientWidth - 16, p = D.pictures[card.run];
  card.fitted = true;
  card.zoom = Math.max(0.62, Math.min(1, width / Math.max(p.before.w, p.after.w)));
  body.querySelectorAll("svg").forEach((svg, i) => { const q = i ? p.after : p.before; svg.setAttribute("width", Math.round(q.w * card.zoom)); svg.setAttribute("height", Math.round(q.h * card.zoom)); });
}

function light(card) {
  if (!card.element.open) return;
  const any = chosen.nodes.size + chosen.steps.size > 0;
  card.element.querySelectorAll("svg").forEach((svg) => svg.classList.toggle("chosen", any));
  card.element.querySelectorAll(".node").forEach((g) => {
    const lit = g.dataset.node !== undefined ? chosen.nodes.has(+g.dataset.node) : g.dataset.step !== undefined && chosen.steps.has(+g.dataset.step);
    g.classList.toggle("lit", lit);
  });
}

function reveal(layer) {
  const card = cards[L[layer].run], shown = card.layers.indexOf(layer);
  if (shown !== card.shown || !card.element.open) { card.shown = shown; if (card.element.open) draw(card); else card.element.open = true; }
  return card;
}

function pressed(event) {
  const at = event.target.closest("[data-node],[data-step],[data-zoom]");
  if (!at) return;
  if (at.dataset.zoom) { const card = cards[+at.closest(".card").dataset.run]; card.zoom = Math.min(3, Math.max(0.3, card.zoom * +at.dataset.zoom)); draw(card); return; }
  if (at.dataset.node !== undefined) chooseNode(+at.dataset.node, at.classList.contains("ghost"));
  else chooseStep(+at.dataset.step, at.classList.contains("ghost"));
}

function startGraph() {
  const holder = byId("layers");
  cards.forEach((card) => {
    const element = document.createElement("details");
    element.className = "card"; element.dataset.run = card.run;
    element.innerHTML = `<summary>${summaryOf(card)}</summary><div class="body"></div>`;
    element.addEventListener("toggle", () => draw(card));
    element.addEventListener("change", (event) => { card.shown = +event.target.value; draw(card); });
    holder.append(element); card.element = element;
  });
  holder.addEventListener("click", pressed);
  holder.addEventListener("keydown", (event) => { if (event.key === "Enter" && event.target.closest(".node")) pressed(event); });
  const best = cards.reduce((a, b) => (b.layers.length > a.layers.length ? b : a), cards[0]);
  if (best) best.element.open = true;
  watchers.push((detail, show) => {
    if (detail && show) {
      const layer = detail.node !== undefined ? N.layer[detail.node] : detail.step !== undefined ? S[detail.step].layer : detail.layer;
      const card = reveal(layer);
      draw(card);
      const lit = card.element.querySelector(".node.lit:not(.ghost)") || card.element;
      lit.scrollIntoView({ block: "center", inline: "center" });
    }
    cards.forEach(light);
  });
}
