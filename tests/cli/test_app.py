"""The command line: what a person reads, what a program reads, and errors of one sentence with exit code 2."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import struct
import sys
from pathlib import Path

import pytest

import idealgroups as ig
from idealgroups.cli.app import main

NETS = """
import torch
from torch import nn

def plain(num_classes=5):
    layers = []
    for i in range(3):
        layers += [nn.Conv2d(3 if i == 0 else 16, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, num_classes))

def with_inputs():
    return plain(), (torch.ones(2, 3, 8, 12),)

def no_norm():
    return nn.Linear(3, 3)

def broken():
    raise RuntimeError("cannot be built")

def not_a_model():
    return 3

def talkative():
    print("building", flush=True)
    return plain()

def exploding():
    net = plain()
    nn.init.constant_(net[0].weight, float("inf"))
    return net
"""
SITE_KEYS = [*(field.name for field in dataclasses.fields(ig.Site)), "group_size"]
PLAN_KEYS = ["format", *(field.name for field in dataclasses.fields(ig.Plan))]


@pytest.fixture
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "my_nets.py").write_text(NETS)
    monkeypatch.chdir(tmp_path)
    return "my_nets.py"


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = 0
    try:
        main(arguments)
    except SystemExit as stop:
        code = int(stop.code or 0)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_plan_prints_a_table_a_summary_and_how_to_apply_it(nets: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "plan", f"{nets}:plain", "--input", "3x16x16")
    assert (code, err) == (0, "")
    assert out.splitlines()[0].split() == ["layer", "channels", "groups", "group", "size"]
    assert "my_nets:plain on 8x3x16x16" in out
    assert "\nverdict: " in out
    assert "model = ig.apply(model, ig.plan(model, example_inputs))" in out
    _, wide, _ = run(capsys, "plan", f"{nets}:plain", "--input", "3x16x16", "--wide")
    for title in ("before", "ideal", "gain", "positions", "kind"):
        assert title in wide.splitlines()[0]


def test_json_is_one_object_and_save_writes_the_same(nets: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "plan", f"{nets}:plain", "--input", "3x16x16", "--json", "--save", "plan.json")
    assert (code, err) == (0, "")
    data = json.loads(out)
    assert list(data) == PLAN_KEYS
    assert [list(site) for site in data["sites"]] == [SITE_KEYS] * 3
    assert json.loads(Path("plan.json").read_text()) == data


def test_a_factory_may_bring_its_inputs(nets: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "plan", f"{nets}:with_inputs")
    assert code == 0
    assert "my_nets:with_inputs on (2x3x8x12) → 2x5, isometric" in " ".join(out.split())


@pytest.mark.parametrize("model", ["raft_small", "lraspp_mobilenet_v3_large", "ssdlite320_mobilenet_v3_large"])
def test_torchvision_networks_that_take_more_than_images(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torchvision")
    code, out, _ = run(capsys, "plan", f"torchvision:{model}", "--input", "3x128x128", "--batch", "2")
    assert code == 0
    assert f"torchvision:{model} on " in out


def test_same_seed_same_plan_and_another_seed_another_network(nets: str, capsys: pytest.CaptureFixture[str]) -> None:
    def plan(seed: str) -> dict[str, object]:
        data = json.loads(run(capsys, "plan", f"{nets}:plain", "--input", "3x16x16", "--json", "--seed", seed)[1])
        return {key: value for key, value in data.items() if key != "seconds"}

    assert plan("1") == plan("1") != plan("2")


def test_measure_sets_before_and_after_side_by_side_and_draws(nets: str, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, "plan", f"{nets}:plain", "--input", "3x16x16", "--save", "plan.json")
    code, out, err = run(
        capsys, "measure", f"{nets}:plain", "--input", "3x16x16", "--plan", "plan.json", "--plot", "u.png"
    )
    assert (code, err) == (0, "")
    assert "log u, before" in out
    assert "log u, after" in out
    assert Path("u.png").read_bytes().startswith(b"\x89PNG")
    code, out, _ = run(capsys, "measure", f"{nets}:plain", "--input", "3x16x16", "--json")
    assert json.loads(out)["layers"][0]["name"] == "0.weight"


def test_plan_and_compare_draw_and_report(nets: str, capsys: pytest.CaptureFixture[str]) -> None:
    small = [f"{nets}:plain", "--input", "3x8x8"]
    code, out, err = run(capsys, "plan", *small, "--plot", "plan.svg", "--report", "plan.html")
    assert (code, err) == (0, "")
    assert "written: plan.svg\nwritten: plan.html" in out
    assert "<svg" in Path("plan.svg").read_text()
    assert Path("plan.html").read_text().startswith("<!DOCTYPE html>")
    code, out, err = run(capsys, "compare", *small, "--strategies", "isometric,layer", "--plot", "all.pdf")
    assert (code, err) == (0, "")
    assert "written: all.pdf" in out
    assert Path("all.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["plan", "--plot", "a.gif"], "idealgroups: cannot draw a.gif: end the name in .png, .svg or .pdf."),
        (
            ["measure", "--plot", "no/a.png"],
            "idealgroups: cannot write no/a.png: there is no folder no; make it first.",
        ),
        (["compare", "--plot", "a"], "idealgroups: cannot draw a: end the name in .png, .svg or .pdf."),
        (["plan", "--report", "a.txt"], "idealgroups: cannot write the report to a.txt: end the name in .html."),
        (["plan", "--report", "no/a.html"], "idealgroups: cannot write the report to no/a.html: there is no folder no"),
        (["plan", "--repeat", "2", "--save", "a.json"], "idealgroups: --repeat makes several plans; leave out --save"),
    ],
)
def test_a_file_that_cannot_be_written_is_refused_before_anything_runs(
    nets: str, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    code, out, err = run(capsys, arguments[0], f"{nets}:broken", *arguments[1:])
    assert (code, out) == (2, "")
    assert err.startswith(message)


def test_compare_prints_a_row_a_strategy(nets: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "compare", f"{nets}:plain", "--input", "3x16x16")
    assert (code, err) == (0, "")
    lines = out.splitlines()[1:11]
    rows = [line[2:].split()[0] for line in lines]
    assert rows == (
        "isometric uniform block fixed-32 gcd-32 group-size-16 min-32-quarter sqrt layer instance".split()  # noqa: SIM905
    )
    for title in ("trend", "spread", "worst gain", "groups", "group size", "smallest"):
        assert title in out.splitlines()[0]
    assert [line[0] for line in lines] == [">", *[" "] * 9]
    assert "verdict: take isometric." in out
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.parametrize("command", ["plan", "measure", "compare"])
@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_an_output_without_greek_letters_gets_ascii(
    nets: str, monkeypatch: pytest.MonkeyPatch, command: str, encoding: str
) -> None:
    output, errors = (io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2))
    monkeypatch.setattr(sys, "stdout", output)
    monkeypatch.setattr(sys, "stderr", errors)
    for arguments in ([f"{nets}:plain", "--input", "3x8x8"], [f"{nets}:βroken"]):
        with pytest.raises(SystemExit):
            main([command, *arguments])
    output.flush()
    errors.flush()
    assert "trend" in output.buffer.getvalue().decode("ascii")
    assert "betaroken" in errors.buffer.getvalue().decode("ascii")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["plan", "resnet50"], "names no model; write torchvision:resnet50"),
        (["plan", "torchvision:resnet51"], "did you mean torchvision:resnet50"),
        (["plan", "timm:resnet50gn"], "did you mean timm:resnet50_gn"),
        (["plan", "no_nets.py:plain"], "there is no file no_nets.py"),
        (["plan", "my_nets.py:plane"], "did you mean my_nets.py:plain?"),
        (["plan", "my_nets.py:no_norm", "--input", "3"], "no normalization layer"),
        (["plan", "my_nets.py:broken"], "raised RuntimeError: cannot be built"),
        (["plan", "my_nets.py:not_a_model"], "returned an object of class int; it must return a torch.nn.Module"),
        (["plan", "my_nets.py:exploding", "--input", "3x8x8"], "not finite"),
        (["plan", "no_such_package.nets:plain"], "there is no module 'no_such_package.nets'"),
        (["plan", "my_nets.py:plain", "--input", "1x16x16"], "takes 3 channels but the example inputs"),
        (["plan", "my_nets.py:plain", "--input", "3,16,16"], "--input must be the sizes of one sample joined by x"),
        (["plan", "my_nets.py:plain", "--batch", "0"], "--batch must be at least 1, got 0."),
        (["plan", "my_nets.py:plain", "--input", "3x²x16"], "as in 3x224x224, got"),
        (["plan", "my_nets.py:plain", "--input", "3x999999x999999"], "8 inputs of 3x999999x999999 do not fit"),
        (["plan", "my_nets.py:plain", "--seed", "99999999999999999999"], "seed must be an integer"),
        (["plan", "my_nets.py:zzzz"], "others: "),
        (["plan", "my_nets.py:plain", "--data", "pinc"], "data must be one of pink, noise, got 'pinc'."),
        (["plan", "my_nets.py:plain", "--arg", "num_classes"], "--arg must be NAME=VALUE, as in num_classes=10, got"),
        (["plan", "my_nets.py:plain", "--arg", "n=1", "--arg", "n=2"], "--arg sets n twice"),
        (["plan", "my_nets.py:plain", "--arg", "num_clases=10"], "'; set its arguments with --arg NAME=VALUE."),
        (["plan", "my_nets.py:plain", "--device", "banana"], "--device banana cannot be used here: "),
        (["plan", "torchvision:resnet18", "--arg", "weights=DEFAULT"], "--arg cannot set weights"),
        (["plan", "my_nets.py:plain", "--strategy", "isometrik"], "did you mean isometric?"),
        (["plan", "my_nets.py:plain", "--inptu", "3x8x8"], "--input"),
        (["plan", "my_nets.py:plain", "--input", "3x8x8", "--save", "no/such/folder/p.json"], "cannot write the plan"),
        (["plan"], "MODEL"),
        (["plann", "my_nets.py:plain"], "plan"),
        (["measure", "my_nets.py:plain", "--plan", "nowhere.json"], "cannot read the plan nowhere.json"),
        (["measure", "my_nets.py:plain", "--plan", "my_nets.py"], "cannot be read as JSON"),
        (["measure", "my_nets.py:plain", "--input", "3x8x8", "--plot", "u.docx"], "cannot draw u.docx"),
        (["compare", "my_nets.py:plain", "--strategies", "isometric,layers"], "did you mean layer?"),
    ],
)
def test_errors_are_one_sentence_and_exit_code_2(
    nets: str, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    code, out, err = run(capsys, *arguments)
    assert code == 2
    assert out == ""
    assert message in err
    assert err.count("\n") == 1
    assert "Traceback" not in err


def test_a_plan_for_another_network_names_the_first_difference(nets: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("wide.py").write_text(NETS.replace("16", "32"))
    run(capsys, "plan", "wide.py:plain", "--input", "3x8x8", "--save", "wide.json")
    code, _, err = run(capsys, "measure", f"{nets}:plain", "--input", "3x8x8", "--plan", "wide.json")
    assert code == 2
    assert "1 " in err
    assert "32" in err
    assert "16" in err


@pytest.mark.parametrize("device", [[], ["--device", "cpu"]])
def test_arguments_reach_the_factory(nets: str, capsys: pytest.CaptureFixture[str], device: list[str]) -> None:
    """The head of the network is measured too: its weight has num_classes rows, so u of it depends on them."""
    outputs = []
    for more in ([], ["--arg", "num_classes=5"], ["--arg", "num_classes=50"]):
        _, out, err = run(capsys, "measure", f"{nets}:plain", "--input", "3x16x16", "--json", *more, *device)
        assert err == ""
        outputs.append(json.loads(out)["layers"][-1]["relative"])
    assert outputs[0] == outputs[1] != outputs[2]


def test_warnings_are_shown_as_before_after_a_command(nets: str, capsys: pytest.CaptureFixture[str]) -> None:
    import warnings

    shown = warnings.showwarning
    run(capsys, "plan", f"{nets}:plain", "--input", "3x8x8")
    run(capsys, "plan", f"{nets}:broken")
    assert warnings.showwarning is shown


def test_a_missing_extra_is_named(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    code, _, err = run(capsys, "plan", "timm:resnet50_gn")
    assert code == 2
    assert "pip install 'idealgroups[zoo]'" in err


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    from idealgroups import __version__

    assert run(capsys, "--version")[1].strip() == __version__
    assert "plan" in run(capsys, "--help")[1]


def test_what_a_factory_prints_does_not_get_into_the_json(nets: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "plan", f"{nets}:talkative", "--input", "3x16x16", "--json")
    assert code == 0
    assert json.loads(out)["model"] == "my_nets:talkative"
    assert "building" in err


def test_a_file_without_a_factory_says_how_to_name_one(nets: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "plan", nets)
    assert code == 2
    assert f"name the factory in it that returns the model, as in {nets}:make" in err


def test_several_words_after_an_option_are_told_to_be_joined(nets: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "compare", f"{nets}:plain", "--strategies", "isometric", "uniform", "fixed-32")
    assert (code, err.count("\n")) == (2, 1)
    assert "uniform, fixed-32 is too much; an option takes one word: join several with commas" in err


@pytest.mark.parametrize(
    "arguments",
    [
        ["plan", "torchvision:resnet81", "--input", "3x128x128"],
        ["compare", "my_nets.py:plain", "--strategies", "isometric", "uniform", "fixed-32"],
        ["plan", "my_nets.py:with_a_dead_norm", "--input", "3x8x8"],
    ],
    ids=["an error", "a usage error", "a warning"],
)
def test_a_narrow_terminal_gets_errors_and_warnings_in_whole_words(
    arguments: list[str], nets: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torchvision")
    fcntl, pty, termios = (pytest.importorskip(name) for name in ("fcntl", "pty", "termios"))
    Path(nets).write_text(
        NETS + "\ndef with_a_dead_norm():\n    import warnings\n"
        "    warnings.warn('one of the layers of this network was left out by whoever built it')\n    return plain()\n"
    )
    monkeypatch.delenv("COLUMNS", raising=False)
    _, _, in_one_line = run(capsys, *arguments)
    assert in_one_line.count("\n") == 1
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 40, 0, 0))
    with open(slave, "w", encoding="utf-8") as terminal, monkeypatch.context() as patch:  # noqa: PTH123
        patch.setattr(sys, "stderr", terminal)
        run(capsys, *arguments)
        terminal.flush()
        shown = os.read(master, 65536).decode().replace("\r\n", "\n")
        os.close(master)
    assert [line for line in shown.splitlines() if len(line) > 40] == []
    assert shown.count("\n") > 1
    assert shown.split() == in_one_line.split()
