// What is known about the chosen step or node.
const list = (pairs) => `<dl>${pairs.filter(([, v]) => v !== "" && v !== undefined && v !== null).map(([k, v]) => `<div><dt>${k}</dt><dd>${v}</dd></div>`).join("")}</dl>`;
const nodeLink = (i) => (typeof i === "string" ? `<code>${escaped(i)}</code>` : `<button type="button" data-node="${i}">${escaped(W[N.op[i]])} ${i}</button>`);
const stepLink = (i) => (typeof i === "string" ? `<code>${escaped(i)}</code>` : `<button type="button" data-step="${i}">${escaped(S[i].op)} ${i}</button>`);
const links = (items, link) => (items.length ? `<span class="links">${items.slice(0, 60).map(link).join("")}${items.length > 60 ? ` and ${items.length - 60} more` : ""}</span>` : "");

const FATE = { fused: "fused", step: "left as a step", folded: "folded into a constant", removed: "removed" };

function aboutNode(i) {
  const n = node(i);
  return `<h3>${escaped(n.op)} <small>imported node ${i}</small></h3>` + list([
    ["module", escaped(n.origin)], ["name", escaped(n.name)], ["result", escaped(n.type)],
    ["went", escaped(FATE[n.fate]) + (n.why ? `: ${escaped(n.why)}` : "")],
    ["now in", n.step >= 0 ? stepLink(n.step) : ""],
    ["reads", links(n.reads, nodeLink)], ["read by", links(nodeReaders.get(i) || [], nodeLink)],
  ]);
}

function aboutStep(i) {
  const s = S[i], total = S.reduce((sum, t) => sum + (t.us || 0), 0);
  const rivals = s.timings_us.length > 1 ? s.timings_us.map(([name, us]) => `${escaped(name)} ${micros(us)}`).join(", ") : "";
  return `<h3>${escaped(s.op)} <small>step ${i}</small></h3>` + list([
    ["kernel", `<code>${escaped(s.kernel)}</code>`], ["module", escaped(s.origin)], ["result", escaped(`${s.dtype} ${s.shape}`)],
    ["time", s.us === null ? "" : `${micros(s.us)}, ${((100 * s.us) / total).toFixed(1)} % of the run`],
    ["ceiling", s.share === null ? "" : `${Math.round(100 * s.share)} % of what the machine can`],
    ["moves", `${bytes(s.bytes)}, ${flops(s.flops)}flop`], ["timed", rivals],
    ["kept", escaped(s.kept)], ["gives", escaped(s.gives.join(", "))],
    ["made of", links(s.sources, nodeLink)], ["reads", links(s.reads, stepLink)], ["read by", links(stepReaders.get(i) || [], stepLink)],
    ["could not", s.refused.map(([name, why]) => `<code>${escaped(name)}</code> ${escaped(why)}`).join("<br>")],
  ]);
}

function startInspector() {
  const box = byId("inspector");
  watchers.push((detail, show) => {
    box.hidden = !detail || detail.layer !== undefined;
    if (box.hidden) return;
    const body = detail.node !== undefined ? aboutNode(detail.node) : aboutStep(detail.step);
    const target = detail.node !== undefined ? `data-node="${detail.node}"` : `data-step="${detail.step}"`;
    box.innerHTML = `<button type="button" class="close" aria-label="close">×</button>${body}<p><button type="button" class="jump" ${target}>show in the graph</button></p>`;
    box.scrollTop = 0;
    const lit = document.querySelector(".card[open] .node.lit:not(.ghost)");
    const hidden = lit && !show ? lit.getBoundingClientRect().bottom + 24 - box.getBoundingClientRect().top : 0;
    if (hidden > 0 && lit.getBoundingClientRect().top < innerHeight) scrollBy({ top: hidden, behavior: "instant" });
  });
  box.addEventListener("click", (event) => {
    if (event.target.closest(".close")) return chooseNothing();
    const at = event.target.closest("[data-node],[data-step]");
    if (!at) return;
    if (at.dataset.node !== undefined) chooseNode(+at.dataset.node, true); else chooseStep(+at.dataset.step, true);
  });
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") chooseNothing(); });
}
