// Data of the report and small helpers.
const D = JSON.parse(document.getElementById("data").textContent);
const W = D.words, N = D.nodes, L = D.layers;
// Steps come as columns; the names are those of html.py, in the same order.
const S = D.steps.family.map((family, i) => {
  const step = { index: i, family: W[family], shape: W[D.steps.shape[i]] };
  ["op", "kernel", "origin", "dtype", "kept"].forEach((k, c) => { step[k] = W[D.steps.words[c][i]]; });
  ["bytes", "flops", "us", "share", "layer"].forEach((k, c) => { step[k] = D.steps.numbers[c][i]; });
  ["reads", "sources"].forEach((k, c) => { step[k] = D.steps.lists[c][i]; });
  ["gives", "refused", "timings_us"].forEach((k) => { step[k] = D.steps.some[k][i] || []; });
  return step;
});
const byId = (id) => document.getElementById(id);
const escaped = (text) => String(text).replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);
const bytes = (v) => (v >= 1e9 ? (v / 1e9).toFixed(2) + " GB" : v >= 1e6 ? (v / 1e6).toFixed(2) + " MB" : v >= 1e3 ? (v / 1e3).toFixed(1) + " kB" : v + " B");
const micros = (v) => (v >= 1e6 ? (v / 1e6).toFixed(2) + " s" : v >= 1e3 ? (v / 1e3).toFixed(2) + " ms" : v.toFixed(1) + " µs");
const flops = (v) => (v >= 1e9 ? (v / 1e9).toFixed(2) + " G" : v >= 1e6 ? (v / 1e6).toFixed(1) + " M" : String(Math.round(v)));
const later = (wait, call) => { let timer; return () => { clearTimeout(timer); timer = setTimeout(call, wait); }; };

const node = (i) => ({ id: i, op: W[N.op[i]], name: N.name[i] || W[N.origin[i]], origin: W[N.origin[i]], type: W[N.type[i]], reads: N.reads[i], fate: D.fates[N.fate[i]], step: N.step[i], why: W[N.why[i]], layer: N.layer[i] });
const nodeFamily = (i) => (N.step[i] >= 0 ? S[N.step[i]].family : D.families[W[N.op[i]]]);
const nodeReaders = new Map(), stepReaders = new Map();
N.reads.forEach((reads, i) => reads.forEach((r) => { if (typeof r === "number") { nodeReaders.has(r) ? nodeReaders.get(r).push(i) : nodeReaders.set(r, [i]); } }));
S.forEach((s, i) => s.reads.forEach((r) => { if (typeof r === "number") { stepReaders.has(r) ? stepReaders.get(r).push(i) : stepReaders.set(r, [i]); } }));

// Runs of equal layers, each shown as one card.
const runs = [];
L.forEach((layer, i) => { (runs[layer.run] ||= []).push(i); });

// What is chosen: sets of nodes and steps that are lit.
const chosen = { nodes: new Set(), steps: new Set() };
const watchers = [];
function choose(nodes, steps, detail, reveal) {
  chosen.nodes = new Set(nodes); chosen.steps = new Set(steps);
  watchers.forEach((watch) => watch(detail, reveal));
}
const chooseStep = (i, reveal) => choose(S[i].sources, [i], { step: i }, reveal);
const chooseNode = (i, reveal) => choose(N.step[i] >= 0 ? S[N.step[i]].sources : [i], N.step[i] >= 0 ? [N.step[i]] : [], { node: i }, reveal);
const chooseNothing = () => choose([], [], null, false);
