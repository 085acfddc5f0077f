"""The main table in LaTeX and CSV."""

import csv
import io
import shutil
import subprocess

import pytest

from benchmarks import compare
from benchmarks.lib.significance import interval_over_seeds
from benchmarks.report import export, tables
from benchmarks.report.rows import rows
from tests.helpers.results import write_result

HOSTILE = r"a_b&50%#$x^2~{y}<\z>|" + '"'


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "tiny"
    for seed in (1, 2, 3):
        write_result(place, "ContRec", seed, [1] * 6, score=0.2)
        write_result(place, HOSTILE, seed, [2] * 6, score=0.15)
    write_result(place, "SASRec", 1, [3] * 6, model="SASRec", score=0.16)
    write_result(place, "GRU4Rec", 1, [3] * 6, model="GRU4Rec", score=0.5, users=7)
    write_result(place, "BPR", 1, [3] * 6, model="BPR", score=0.3, masked=True)
    # the first row says what the others are measured like
    for seed in (1, 2, 3):
        write_result(place, "ContRec", seed, [1] * 6, score=0.6)
    return place


def line_of(text, name):
    return next(line for line in text.splitlines() if line.startswith(name))


def test_the_best_is_bold_and_the_second_best_underlined(folder):
    text = export.latex(rows(folder))
    half = interval_over_seeds([0.61, 0.62, 0.63])[1] - 0.62
    cell = rf"\textbf{{.6200}} {{\scriptsize$\pm${half:.4f}}}".replace("$0.", "$.")
    assert line_of(text, "ContRec").startswith(f"ContRec & 3 & {cell} & {cell} & {cell} & {cell} & {cell} ")
    # of two equal ones both are second; where seen items are masked, BPR is
    second = r"\underline{.1700}"
    assert line_of(text, "SASRec") == rf"SASRec & 1 & {second} & {second} & {second} & .1700 & .1700 \\"
    assert line_of(text, "a").count(second) == 3


def test_rows_that_compare_with_none_have_no_mark(folder):
    text = export.latex(rows(folder))
    other = line_of(text, "GRU4Rec")
    assert r"GRU4Rec\textsuperscript{\textdagger}" in other and r"\textbf" not in other and ".5100" in other
    assert "not comparable: GRU4Rec differs in users." in text
    masked = line_of(text, "BPR")
    assert (
        masked == r"BPR\textsuperscript{\textdaggerdbl} & 1 & -- & -- & -- & \underline{.3100} & \underline{.3100} \\"
    )


def test_special_letters_are_printed_as_they_are(folder):
    assert export.escape(HOSTILE) == (
        r"a\_b\&50\%\#\$x\textasciicircum{}2\textasciitilde{}\{y\}\textless{}\textbackslash{}z\textgreater{}"
        r"\textbar{}\textquotedbl{}"
    )
    text = export.latex(rows(folder))
    assert export.escape(HOSTILE) in text and "NDCG@10 & HR@10 & MRR@10 & NDCG@10 & HR@10" in text
    rule = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert all(line.replace(r"\&", "").count("&") == 6 for line in rule[1:])  # above, columns are joined


def test_latex_takes_it(folder, tmp_path):
    if (program := shutil.which("pdflatex")) is None:
        pytest.skip("no pdflatex here: nothing can set the table")
    head = r"\documentclass{article}\usepackage[T1]{fontenc}\usepackage{booktabs}\begin{document}"
    (tmp_path / "page.tex").write_text(f"{head}\n{export.latex(rows(folder))}\n\\end{{document}}\n")
    done = subprocess.run(
        [program, "-interaction=nonstopmode", "-halt-on-error", "page.tex"], cwd=tmp_path, capture_output=True
    )
    assert done.returncode == 0, done.stdout.decode()[-2000:]


def test_csv_has_plain_numbers_and_every_metric(folder):
    lines = list(csv.DictReader(io.StringIO(export.comma_separated(rows(folder)))))
    found = {line["model"]: line for line in lines}
    assert set(found) == {"ContRec", HOSTILE, "SASRec", "GRU4Rec", "BPR"} and found["GRU4Rec"]["differs in"] == "users"
    ours, alone = found["ContRec"], found["BPR"]
    assert {f"test {metric} mean" for metric in tables.METRICS} <= ours.keys()
    low, high = interval_over_seeds([0.61, 0.62, 0.63])
    numbers = [float(ours[f"test ndcg@10 {kind}"]) for kind in ("mean", "sd", "low", "high")]
    assert numbers == pytest.approx([0.62, 0.01, low, high], abs=1e-6)
    assert found["SASRec"]["test ndcg@10 sd"] == "" and float(found["SASRec"]["test ndcg@10 mean"]) == 0.17
    assert alone["test ndcg@10 mean"] == "" and float(alone["test_seen_masked ndcg@10 mean"]) == 0.31


@pytest.mark.parametrize("form, ending", [("latex", "tex"), ("csv", "csv"), ("markdown", "md")])
def test_the_command_prints_the_table_alone(form, ending, folder, capsys):
    command = ["--dataset=tiny", f"--output={folder.parent}", "--tables-only", f"--format={form}"]
    assert compare.main(command) == 0
    told = capsys.readouterr()
    assert told.out == (folder / f"table.{ending}").read_text() == export.FORMATS[form][1](rows(folder))
    assert told.err.startswith("written:") and not (folder / "README.md").exists()
    assert compare.main(["--dataset=none", *command[1:]]) == 1
    told = capsys.readouterr()
    assert told.out == "" and "holds no finished run" in told.err
