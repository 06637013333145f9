// Everything is put together: plots and tables choose steps, the search finds nodes, the theme is switched.
function startPlots() {
  const marks = document.querySelectorAll(".plot [data-step]");
  document.querySelectorAll(".plot").forEach((plot) => plot.addEventListener("click", (event) => {
    const at = event.target.closest("[data-step]");
    if (at) chooseStep(+at.dataset.step, false);
  }));
  watchers.push(() => marks.forEach((mark) => mark.classList.toggle("lit", chosen.steps.has(+mark.dataset.step))));
}

function startRows() {
  document.querySelectorAll("tr[data-ids] .show").forEach((button) => button.addEventListener("click", () => {
    const ids = button.closest("tr").dataset.ids.split(" ").filter(Boolean).map(Number);
    if (!ids.length) return;
    choose(ids, ids.map((i) => N.step[i]).filter((s) => s >= 0), { layer: N.layer[ids[0]] }, true);
  }));
}

function startSearch() {
  const box = byId("find"), found = byId("found");
  const text = N.op.map((op, i) => `${W[op]} ${N.name[i]} ${W[N.origin[i]]}`.toLowerCase());
  const look = () => {
    const words = box.value.toLowerCase().split(/\s+/).filter(Boolean), hits = [];
    for (let i = 0; words.length && i < text.length && hits.length < 40; i++) if (words.every((w) => text[i].includes(w))) hits.push(i);
    found.innerHTML = hits.map((i) => `<li><button type="button" data-node="${i}">${escaped(W[N.op[i]])} <small>${escaped(W[N.origin[i]])}</small></button></li>`).join("") || (words.length ? "<li><button type=\"button\">nothing found</button></li>" : "");
  };
  box.addEventListener("input", later(80, look));
  found.addEventListener("click", (event) => {
    const at = event.target.closest("[data-node]");
    found.textContent = ""; box.value = "";
    if (at) chooseNode(+at.dataset.node, true);
  });
}

byId("theme").addEventListener("click", () => {
  const dark = document.documentElement.dataset.theme ? document.documentElement.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.dataset.theme = dark ? "light" : "dark";
});
startGraph(); startInspector(); startTable(); startPlots(); startRows(); startSearch();
document.documentElement.dataset.ready = "yes";
