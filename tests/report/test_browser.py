"""The page in a real browser: no errors, no network, search, sort, click-through, folding, themes, a phone."""

import shutil
import time

import pytest

import qontext as qx

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

CHROMIUM = next((p for n in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(n))), None)
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium, chromium-browser or google-chrome on this machine"),
]


@pytest.fixture(scope="module")
def chromium():
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def files(engine, large_page, tmp_path_factory):
    """Pages by name: a BERT beside another engine, and one with ten thousand nodes that do not fold."""
    from qontext.report.against import against

    home = tmp_path_factory.mktemp("pages")
    report = qx.explain(engine, 2, 16)
    report.beside(against(engine, engine, batch=2, length=16)).save(home / "bert.html")
    (home / "large.html").write_text(large_page, encoding="utf-8")
    return home


@pytest.fixture
def open_page(chromium, files):
    """Opens a page offline; whatever the browser complains about, or asks a network for, fails the test."""
    complaints, contexts = [], []

    def open_it(name="bert", width=1280, scheme="light"):
        context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda m: complaints.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda e: complaints.append(str(e)))
        page.on("request", lambda r: complaints.append(r.url) if not r.url.startswith("file:") else None)
        page.goto((files / f"{name}.html").as_uri())
        page.wait_for_selector("html[data-ready=yes]")
        return page

    yield open_it
    for context in contexts:
        context.close()
    assert complaints == []


def lit(page, side):
    key = "node" if side == "before" else "step"
    return {int(v) for v in page.eval_on_selector_all(f".scroll.{side} .node.lit", f"a => a.map(n => n.dataset.{key})")}


def test_a_step_lights_up_its_nodes_and_back(open_page, engine):
    page = open_page()
    data = qx.explain(engine, measure=False).data
    step = next(s for s in data["steps"] if s["op"] == "Linear" and len(s["sources"]) == 3)
    page.click(f'.scroll.after .node[data-step="{step["index"]}"]')
    assert lit(page, "before") == set(step["sources"]) and lit(page, "after") == {step["index"]}
    shown = page.inner_text("#inspector")
    assert step["kernel"] in shown and step["origin"] in shown and "% of the run" in shown
    page.keyboard.press("Escape")
    assert lit(page, "before") == set() and page.is_hidden("#inspector")
    page.click(f'.scroll.before .node[data-node="{step["sources"][0]}"]')
    assert lit(page, "after") == {step["index"]}
    assert "fused: qkv" in page.inner_text("#inspector")


def test_layers_fold_and_unfold(open_page):
    page = open_page()
    cards = page.locator("#layers > .card")
    assert cards.count() == 3
    folded = cards.nth(1)
    assert "\u00d7 3" in folded.inner_text() and folded.locator("svg").count() == 2
    first = folded.locator(".scroll.before .node[data-node]").first.get_attribute("data-node")
    folded.locator("select").select_option("2")
    assert folded.locator(".scroll.before .node[data-node]").first.get_attribute("data-node") != first
    folded.locator("summary").click()
    page.wait_for_function("document.querySelectorAll('#layers > .card')[1].querySelectorAll('svg').length === 0")
    cards.nth(0).locator("summary").click()
    page.wait_for_function("document.querySelectorAll('#layers > .card')[0].querySelectorAll('svg').length === 2")


def test_tables_and_graph_lead_to_each_other(open_page):
    page = open_page()
    page.locator("#unfused button.show").first.click()
    assert lit(page, "before"), "what was not fused is shown in the graph"
    row = page.locator("#steps tbody tr").first
    step = row.get_attribute("data-step")
    row.click()
    assert "lit" in row.get_attribute("class")
    page.click("#inspector .jump")
    assert int(step) in lit(page, "after")
    page.locator("#roofline, .plot circle").first.dispatch_event("click")
    assert page.locator("#steps tr.lit").count() == 1


def test_the_search_finds_nodes_in_folded_layers(open_page):
    page = open_page()
    page.fill("#find", "layer.2 intermediate gelu")
    page.locator("#found button").first.click()
    assert "bert.encoder.layer.2.intermediate" in page.inner_text("#inspector")
    assert len(lit(page, "before")) == 2
    page.fill("#find", "no such thing")
    assert page.locator("#found").inner_text() == "" or "nothing found" in page.locator("#found").inner_text()


def test_kernels_sort_search_and_group(open_page, engine):
    page = open_page()
    steps = len(engine.compiled.programs["encode"].steps)
    rows = page.locator("#steps tbody tr")
    assert rows.count() == steps

    def column(key):
        at = page.eval_on_selector_all("#steps th", "a => a.map(t => t.dataset.key)").index(key)
        return page.eval_on_selector_all("#steps tbody tr", f"a => a.map(r => r.cells[{at}].innerText)")

    page.click('#steps th[data-key="index"] button')
    assert column("index") == [str(i) for i in range(steps)]
    page.click('#steps th[data-key="index"] button')
    assert column("index")[0] == str(steps - 1)
    page.click('#steps th[data-key="op"] button')
    assert column("op") == sorted(column("op"), key=str.lower)
    page.fill("#filter", "qkvtocontext layer.1")
    page.wait_for_function("document.querySelectorAll('#steps tbody tr').length === 1")
    page.fill("#filter", "")
    page.wait_for_function(f"document.querySelectorAll('#steps tbody tr').length === {steps}")
    page.locator('.timebar [data-family="attention"]').click()
    assert rows.count() == 3
    page.locator('.timebar [data-family="attention"]').click()
    page.check("#bykernel")
    assert rows.count() < steps and "\u00d7 3" in page.inner_text("#steps")


def test_light_and_dark(open_page):
    def background(page):
        return page.evaluate("getComputedStyle(document.body).backgroundColor")

    light, dark = open_page(), open_page(scheme="dark")
    assert background(light) != background(dark)
    dark.click("#theme")
    assert background(dark) == background(light)
    light.click("#theme")
    assert background(light) != background(dark)


def test_a_phone(open_page):
    page = open_page(width=390)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.evaluate(
        "[...document.querySelectorAll('p, h1, h2, td')].every(e => getComputedStyle(e).fontSize.slice(0, -2) >= 12)"
    )
    tops = page.eval_on_selector_all(".pane", "a => a.map(p => p.getBoundingClientRect().top)")
    assert tops[1] > tops[0], "the two graphs stand one below the other"
    page.locator(".scroll.after .node[data-step]").nth(1).click()
    box = page.locator("#inspector").bounding_box()
    assert box["width"] <= 390 and box["height"] < 450


@pytest.mark.alone
def test_ten_thousand_nodes_open_in_three_seconds_and_stay_responsive(open_page):
    """Times are of a machine that may be busy with other things: one of three tries has to be quick."""
    opening, pressing, searching = [], [], []
    for _ in range(3):
        start = time.perf_counter()
        page = open_page("large")
        opening.append(time.perf_counter() - start)
        start = time.perf_counter()
        page.locator(".scroll.after .node[data-step]").nth(100).dispatch_event("click")
        assert len(lit(page, "before")) == 1
        pressing.append(time.perf_counter() - start)
        start = time.perf_counter()
        page.fill("#filter", "layer.47 tanh")
        page.wait_for_function("document.getElementById('rows').textContent.split(' ')[0] < 100")
        searching.append(time.perf_counter() - start)
        page.locator("#layers > .card").nth(30).locator("summary").click()
        page.wait_for_function("document.querySelectorAll('#layers > .card')[30].querySelectorAll('svg').length === 2")
        page.close()
        if opening[-1] < 3 and pressing[-1] < 1 and searching[-1] < 1:
            break
    assert min(opening) < 3, opening
    assert min(pressing) < 1 and min(searching) < 1, (pressing, searching)


def test_the_other_side_is_there(open_page):
    page = open_page()
    page.locator("#against .card summary").nth(1).click()
    assert "QKVToContext" in page.locator("#against .card").nth(1).inner_text()
