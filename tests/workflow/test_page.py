"""The page where every number says where it comes from: its
pictures, and what a reader does with it in a browser."""

import base64
import contextlib
import io
import json
import re
import shutil

import matplotlib.image
import numpy as np
import pytest
import torch
from conftest import ROOT
from selenium import webdriver
from selenium.common import TimeoutException
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.wait import WebDriverWait

from blindspots.audit import page
from blindspots.audit.records import Run
from blindspots.networks.evaluation import classify
from blindspots.steps import artifacts, trained_networks
from blindspots.steps.artifacts import Array
from blindspots.steps.fingerprint import fingerprint
from scripts import render_audit

TEMPLATE = ROOT / "workflow/report/audit.html.j2"
MODULES = sorted((ROOT / "workflow").rglob("*.py"))
HOSTILE = "</script><script>document.title = 'harmed'</script><b>&amp;</b> \u2028 {{ 7 * 7 }} 'x\" &"


@pytest.fixture(scope="module")
def exported(finished):
    return json.loads((finished / "results/provenance.json").read_text())


def cell_of(exported, name):
    table, row, column = name.split("/")
    (cell,) = [
        cell for cell in exported["tables"][table]["cells"] if (cell["row"], cell["column"]) == (row, column)
    ]
    return cell


def drawn(finished, exported, name):
    """A cell's picture: what is said of it, and its rows of tiles as bytes."""
    results = finished / "results"
    data = dict.fromkeys(("train", "test"), results / "data.h5")
    picture = page.picture(Run(finished), cell_of(exported, name), data, results / "splits.h5")
    pixels = matplotlib.image.imread(io.BytesIO(base64.b64decode(picture["png"])))
    gray = np.rint(255 * pixels[..., 0]).astype(np.uint8)
    assert (pixels[..., :3] == pixels[..., :1]).all()
    tiles = gray.reshape(gray.shape[0] // 30, 30, -1, 30).transpose(0, 2, 1, 3)
    return picture, tiles[:, :, 1:-1, 1:-1]


def read(finished, path, *names):
    with artifacts.read(finished / "results" / path) as file:
        return [file[name][()] for name in names]


def as_bytes(pixels):
    return np.rint(255 * np.clip(pixels, 0, 1)).astype(np.uint8)


def wrong(finished, network, pixels, labels):
    predicted = classify(
        trained_networks.read(finished / f"results/networks/{network}.h5"), torch.as_tensor(pixels)
    )
    return np.flatnonzero(predicted.numpy() != labels)


# Pictures


@pytest.mark.parametrize(
    ("name", "shard", "part", "network"),
    [
        ("table4/M1/M2", "adversarial/test/M1/1-of-1.h5", "test", "M2"),
        ("table4/M2/M2", "adversarial/test/M2/1-of-1.h5", "test", "M2"),
        ("table4/noise_0.06/M1", "noise/test/0.06/1-of-1.h5", "test", "M1"),
        ("table2/softmax1/Conv", "adversarial/train/softmax1/1-of-1.h5", "train", "Conv"),
    ],
)
def test_a_transfer_cell_shows_images_that_the_network_misclassifies(
    finished, exported, name, shard, part, network
):
    picture, (above, below) = drawn(finished, exported, name)
    images, labels, index, success = read(finished, shard, "images", "labels", "index", "success")
    (originals,) = read(finished, "data.h5", f"{part}/images")
    fooled = [i for i in wrong(finished, network, images, labels) if success[i]]
    first = fooled[: page.SHOWN]
    assert len(first) == above.shape[0] > 0
    assert (above == originals[index[first]]).all()
    assert (below == as_bytes(images[first])).all()
    assert [note.split(" → ")[0] for note in picture["notes"]] == [str(label) for label in labels[first]]
    assert f"of the {len(fooled)} {part} images that {network} misclassifies" in picture["caption"]


@pytest.mark.parametrize(("name", "split"), [("table3/M2/error_P1", "P1"), ("table3/M1/error_test", None)])
def test_an_error_cell_shows_misclassified_images(finished, exported, name, split):
    _, network, _ = name.split("/")
    _, (shown,) = drawn(finished, exported, name)
    part = "train" if split else "test"
    images, labels = read(finished, "data.h5", f"{part}/images", f"{part}/labels")
    if split:
        (places,) = read(finished, "splits.h5", split)
        images, labels = images[places], labels[places]
    fooled = wrong(finished, network, images.astype(np.float32) / 255, labels)
    assert (shown == images[fooled[: page.SHOWN]]).all()


@pytest.mark.parametrize(
    ("name", "shard"),
    [
        ("table3/M1/distortion", "adversarial/test/M1/1-of-1.h5"),
        ("table3/M1/refined", "refined/test/M1/1-of-1.h5"),
        ("table1/softmax1/exact", "exact/train/softmax1/1-of-1.h5"),
    ],
)
def test_a_distortion_shows_the_first_examples_with_their_targets(finished, exported, name, shard):
    picture, (_, below) = drawn(finished, exported, name)
    images, labels, targets, success = read(finished, shard, "images", "labels", "target", "success")
    first = np.flatnonzero(success)[: page.SHOWN]
    assert (below == as_bytes(images[first])).all()
    assert picture["notes"] == [f"{labels[i]} → {targets[i]}" for i in first]


@pytest.fixture
def sharded(tmp_path):
    """A row of 12 images in three shards of four, the last
    of them lost: images of one gray each, the k-th of k."""
    pixels = np.arange(20, dtype=np.uint8)[:, None, None] * np.ones((1, 28, 28), dtype=np.uint8)
    labels = np.arange(20, dtype=np.uint8) % 10
    artifacts.write(
        tmp_path / "data.h5", {"test/images": Array(pixels, ""), "test/labels": Array(labels, "")}, {}
    )
    paths = [f"{number}-of-3.h5" for number in (1, 2, 3)]
    for path, index in zip(paths, np.arange(12).reshape(3, 4) + 5, strict=True):
        values = {"index": index, "images": (pixels[index] + 100) / 255, "target": index % 7}
        record = {"settings": {"images": "test"}, "inputs": {}}
        artifacts.write(tmp_path / path, {name: Array(value, "") for name, value in values.items()}, record)
    (tmp_path / paths[2]).unlink()

    def picture(*fooled):
        values = {"index/row": np.arange(5, 17), "misclassified/row/M": np.isin(np.arange(12), fooled)}
        inputs = {"distorted": dict.fromkeys(paths, ""), "networks": {"M.h5": ""}}
        arrays = {name: Array(value, "") for name, value in values.items()}
        artifacts.write(tmp_path / "evaluation.h5", arrays, {"settings": {}, "inputs": inputs})
        source = {"artifact": "evaluation.h5", "array": "misclassified/row/M", "inputs": [*paths, "M.h5"]}
        run, data, splits = Run(tmp_path), {"test": tmp_path / "data.h5"}, tmp_path / "none.h5"
        cell = {"unit": "%", "sources": [source]}
        return page.examples(run, source, data, splits), page.picture(run, cell, data, splits)

    return picture


def test_images_come_from_the_first_shards_that_have_enough_of_them(sharded):
    found, picture = sharded(1, 3, 4, 5, 6, 7, 8, 11)
    assert found.of == 8
    places = np.array([6, 8, 9, 10, 11, 12])
    assert [image[0, 0] for image in found.rows[0]] == places.tolist()
    assert [image[0, 0] for image in found.rows[1]] == (places + 100).tolist()
    assert picture["notes"] == [f"{place % 10} → {place % 7}" for place in places]


def test_a_lost_shard_that_is_needed_is_an_error(sharded):
    with pytest.raises(artifacts.ArtifactError, match=r"3-of-3\.h5"):
        sharded(1, 11)


def test_where_no_image_fooled_it_this_is_said(sharded):
    _, picture = sharded()
    assert picture == {"caption": "There are no images that M misclassifies."}


# The page's bytes


def rendered(finished, provenance, output):
    """Run the program as its rule does."""
    files = {"provenance": [provenance], "data": ["results/data.h5"], "pictures": ["results/pictures.h5"]}
    files |= {"splits": ["results/splits.h5"], "images": []}
    files |= {"template": [TEMPLATE], "modules": MODULES, "output": [output]}
    with contextlib.chdir(finished):
        assert (
            render_audit.main(
                [word for role, paths in files.items() for word in (f"--{role}", *map(str, paths))]
            )
            == 0
        )
    return output


def test_the_same_inputs_give_the_same_bytes(finished, tmp_path):
    again = rendered(finished, finished / "results/provenance.json", tmp_path / "audit.html").read_bytes()
    assert again == (finished / "results/audit.html").read_bytes()


def test_every_recorded_module_is_there_with_its_hash(finished, exported):
    shown = page.module_texts(MODULES, exported["files"])
    made = {file["record"]["program"] for file in exported["files"].values()}
    recorded = {name: digest for program in made for name, digest in fingerprint(program).modules.items()}
    assert {name: module["sha256"] for name, module in shown.items()} == recorded
    assert all((ROOT / module["path"]).read_text() == module["text"] for module in shown.values())


def test_tables_can_be_read_without_javascript(finished, exported):
    static = (finished / "results/audit.html").read_text().partition("<script")[0]
    for name, table in exported["tables"].items():
        for cell in table["cells"]:
            assert f'id="{name}/{cell["row"]}/{cell["column"]}"' in static
            assert f"<b>{ours_told(cell)}</b>" in static
    assert "python -m blindspots.audit" in static


# In a browser


def told(value, cell):
    several = cell["std_over_seeds"] is not None
    form = {"%": ".2f" if several else ".1f", "rms": ".4f"}.get(cell["unit"], ".3g")
    return "–" if value is None else f"{value:{form}} %" if cell["unit"] == "%" else f"{value:{form}}"


def ours_told(cell):
    """A cell's value, with its spread where there are several trainings."""
    value, spread = told(cell["value"], cell), cell["std_over_seeds"]
    return value if spread is None else f"{value.removesuffix(' %')} ± {told(spread, cell)}"


@pytest.fixture(scope="module")
def browser():
    programs = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if None in programs:
        pytest.skip("there is no chromium, or no chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = programs[0]
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1280,900"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(programs[1]))
    yield driver
    driver.quit()


@pytest.fixture
def opened(browser, finished):
    """Open a page, the finished run's or another, afresh; at
    the end there must have been no error and no request."""
    browser.get("about:blank")
    for kind in ("browser", "performance"):
        browser.get_log(kind)

    pages = set()

    def open_page(fragment="", path=finished / "results/audit.html"):
        pages.add(path.as_uri())
        browser.get(path.as_uri() + fragment)
        return browser

    yield open_page
    assert browser.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = {
        event["params"]["request"]["url"]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
    }
    assert {url for url in asked if not url.startswith("data:")} == pages
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def by_id(browser, name):
    return browser.find_element("id", name)


def press(browser, *keys):
    for key in keys:
        browser.switch_to.active_element.send_keys(key)


def eventually(browser, script, expected):
    """Wait for what the page does only after the event at hand."""
    with contextlib.suppress(TimeoutException):
        WebDriverWait(browser, 10, 0.05).until(
            lambda _: browser.execute_script(f"return {script}") == expected
        )
    assert browser.execute_script(f"return {script}") == expected


def assert_open(browser, *names):
    """These dialogs are open, and no others."""
    eventually(
        browser, "[...document.querySelectorAll('dialog[open]')].map(dialog => dialog.id)", list(names)
    )


def assert_focused(browser, name):
    eventually(browser, "document.activeElement.id", name)


def content(browser, name="cell"):
    """All text of a dialog, folded or not."""
    return by_id(browser, name).get_attribute("textContent")


def test_every_cell_is_there_with_its_value_interval_paper_and_mark(opened, exported):
    shown = opened().execute_script(
        "return Object.fromEntries([...document.querySelectorAll('td a')].map(a => [a.id,"
        " [a.innerText, a.querySelector('.mark').getAttribute('aria-label'),"
        " a.closest('table').caption.innerText]]))"
    )
    cells = [(table, cell) for table in exported["tables"].values() for cell in table["cells"]]
    assert len(shown) == len(cells) > 100
    for table, cell in cells:
        text, verdict, title = shown["/".join((cell["table"], cell["row"], cell["column"]))]
        ours, *interval, paper = text.split("\n")
        assert ours == ours_told(cell)
        ends = [told(cell[end], cell).removesuffix(" %") for end in ("ci_low", "ci_high")]
        sampled = cell["unit"] not in ("norm", "ratio")  # of others there is no interval
        assert interval == (["[{}, {}]".format(*ends)] if sampled else [])
        unit = " %" if cell["unit"] == "%" else ""
        assert paper == ("– ours alone" if cell["paper"] is None else f"– paper {cell['paper']}{unit}")
        assert (verdict, title) == (cell["verdict"], table["title"])


def test_a_click_opens_the_whole_chain(opened, finished, exported):
    browser = opened()
    assert_open(browser)
    by_id(browser, "table4/M1/M2").click()
    assert_open(browser, "cell")
    assert browser.current_url.endswith("audit.html#table4/M1/M2")
    text, cell = content(browser), cell_of(exported, "table4/M1/M2")
    (source,) = cell["sources"]
    chain = Run(finished).chain(source["artifact"], source["array"])
    assert "results/data.h5" in chain
    for path in chain:
        record = exported["files"][path]["record"]
        assert path in text
        for key in ("content_sha256", "code", "program", "host", "cpu", "git_commit"):
            assert str(record[key] or "not under version control") in text
        for value in (*record["packages"].values(), *record["code_modules"].values()):
            assert value in text
    for value in (source["array"], source["meaning"], source["sha256"], cell["formula"], "lbfgs.c_tolerance"):
        assert value in text
    assert str(cell["value"]).removesuffix(".0") in text
    assert "python -m blindspots.audit table4 M1 M2 --recompute" in text
    summaries = browser.execute_script(
        "return [...document.querySelectorAll('.tree summary > code:first-child')].map(e => e.textContent)"
    )
    assert sorted(summaries) == sorted(chain), "each file once"


def test_the_picture_is_shown_with_words_for_it(opened):
    browser = opened("#table4/M1/M2")
    image = browser.find_element("css selector", "#cell img")
    assert browser.execute_script("return arguments[0].naturalHeight", image) == 60
    assert "misclassifies" in image.get_attribute("alt")


def test_the_keyboard_is_enough(opened):
    browser = opened()
    browser.execute_script("document.getElementById('table4/M1/M1').focus()")
    press(browser, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_DOWN, Keys.ARROW_LEFT)
    assert_focused(browser, "table4/M1_prime/M1_prime")
    press(browser, Keys.ARROW_UP, Keys.ENTER)
    assert_open(browser, "cell")
    assert "table4: M1 × M1_prime" in content(browser)
    press(browser, Keys.ESCAPE)
    assert_open(browser)
    assert_focused(browser, "table4/M1/M1_prime")
    assert "#" not in browser.current_url
    browser.execute_script("document.getElementById('table1/N100_100_10/refined').focus()")
    press(browser, Keys.ARROW_RIGHT)  # to where there is no cell
    assert_focused(browser, "table1/N100_100_10/refined")
    press(browser, Keys.ARROW_LEFT)
    assert_focused(browser, "table1/N100_100_10/distortion")


def test_a_cell_has_an_address_and_the_way_back_closes_it(opened):
    browser = opened("#table3/M2/error_P1")
    assert "table3: M2 × error_P1" in content(browser)
    browser.find_element("css selector", "#cell header button").click()
    assert_focused(browser, "table3/M2/error_P1")
    by_id(browser, "table3/M1/refined").click()
    assert_open(browser, "cell")
    browser.back()
    assert_open(browser)


def test_a_modules_source_can_be_read(opened, exported):
    browser = opened("#table4/M1/M2")
    browser.execute_script(
        "document.querySelectorAll('#cell details').forEach(details => { details.open = true })"
    )
    (module,) = browser.find_elements("xpath", "(//button[text()='blindspots.training.convergence'])[1]")
    module.click()
    assert_open(browser, "cell", "source")
    text = browser.execute_script("return document.querySelector('#source pre').textContent")
    assert text == (ROOT / "workflow/blindspots/training/convergence.py").read_text()
    record = exported["files"]["results/networks/M1.h5"]["record"]
    assert record["code_modules"]["blindspots.training.convergence"] in content(browser, "source")
    assert str(record["git_commit"] or "not under version control") in content(browser, "source")
    assert "This is the code that made the file" in content(browser, "source")
    press(browser, Keys.ESCAPE)
    assert_open(browser, "cell")


def test_on_a_phone_only_tables_scroll_sideways(opened):
    def widths(browser, selector):
        script = f"const e = document.querySelector('{selector}'); return [e.scrollWidth, e.clientWidth]"
        return browser.execute_script(script)

    browser = opened()
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": 375, "height": 800, "deviceScaleFactor": 1, "mobile": True},
    )
    assert widths(browser, "html") == [375, 375]
    inside, outside = widths(browser, "#table2 .scroll")
    assert inside > outside
    browser.execute_script("location.hash = 'table2/softmax1/Conv'")
    assert_open(browser, "cell")
    browser.execute_script(
        "document.querySelectorAll('#cell details').forEach(details => { details.open = true })"
    )
    assert widths(browser, "#cell") == [375, 375]
    assert widths(browser, "html") == [375, 375]


@pytest.fixture
def changed(finished, exported, tmp_path):
    """The page of another run: hostile words, all verdicts,
    replicates, a number that is none, other code, no commit."""
    other = json.loads(json.dumps(exported))
    table = other["tables"]["table4"]
    table["title"] = table["notes"][0] = HOSTILE
    for cell, verdict in zip(table["cells"], ["agrees", "differs", "not comparable"], strict=False):
        cell["verdict"], cell["std_over_seeds"] = verdict, 1.25
        cell["row_label"] = cell["column_label"] = cell["sources"][0]["meaning"] = HOSTILE
    table["cells"][2] |= {"value": None, "ci_low": None, "ci_high": None}
    for file in other["files"].values():
        file["record"] |= {"git_commit": None, "git_dirty": None, "host": HOSTILE}
        file["record"]["code_modules"] |= {
            "blindspots.networks.evaluation": "0" * 64,
            "blindspots.gone": "1" * 64,
        }
    provenance = tmp_path / "provenance.json"
    provenance.write_text(json.dumps(other))
    return rendered(finished, provenance, tmp_path / "audit.html")


def test_hostile_words_are_only_words(opened, changed):
    browser = opened("#table4/M1/M1", changed)
    assert browser.title == "Where every number comes from"
    words = re.sub(r"\s+", " ", HOSTILE)
    caption, label = browser.execute_script(
        "return ['caption', 'tbody th'].map(name => document.querySelector('#table4 ' + name).textContent)"
    )
    for text in (caption, label, content(browser)):
        assert words in re.sub(r"\s+", " ", text)
    assert browser.execute_script("return document.querySelectorAll('#table4 li')[0].textContent") == HOSTILE


def test_marks_spreads_and_missing_numbers_are_told(opened, changed):
    browser = opened("", changed)
    texts = [by_id(browser, f"table4/M1/{column}").text.split("\n") for column in ("M1", "M1_prime", "M2")]
    assert [text[2][0] for text in texts] == ["✓", "✗", "–"]
    assert texts[0][0].endswith("± 1.25 %")
    assert texts[2][:2] == ["– ± 1.25 %", "[–, –]"]
    by_id(browser, "table4/M1/M2").click()
    assert_open(browser, "cell")
    assert "null" not in content(browser)


def test_code_that_is_not_the_recorded_one_is_said_to_be_so(opened, changed):
    browser = opened("#table4/M1/M2", changed)
    assert "blindspots.gone" in content(browser)
    assert "no such module when this page was made" in content(browser)
    browser.execute_script(
        "[...document.querySelectorAll('#cell button')]"
        ".find(button => button.textContent === 'blindspots.networks.evaluation').click()"
    )
    assert "This is not the code that made the file" in content(browser, "source")
    assert "not under version control" in content(browser, "source")
