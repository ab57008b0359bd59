"""Command lines and configuration files with mistakes in them, drawn from a seed."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

VALUES = (
    *(
        "",
        " ",
        "-1",
        "0",
        "1",
        "3.7",
        "1e400",
        "-1e-400",
        "nan",
        "inf",
        "-inf",
        "NaN",
        "1_000",
        "0x10",
        "010",
        "1:30",
        "٣",
    ),
    *(
        "True",
        "false",
        "None",
        "null",
        "~",
        "yes",
        "on",
        "???",
        "${nope}",
        "${NAME}",
        "${oc.env:HOME}",
        "$HOME",
        "%s",
        "{}",
    ),
    *(
        "{",
        "}",
        "{{",
        "{question}",
        "{0}",
        "{question!r}",
        "{question.__class__}",
        "{a:>{b}}",
        "[",
        "]",
        "[]",
        "[a",
        "[[]]",
    ),
    *(
        "[1, 2]",
        "[a, b]",
        "{a: b}",
        "{a: {b: c}}",
        "? a",
        "- a",
        ": ",
        "a: b: c",
        "!!python/object:os.system x",
        "&a [*a]",
    ),
    *(
        "*a",
        "!!binary x",
        "!!int x",
        "!!timestamp x",
        "2024-13-45",
        "2024-01-01",
        "<<",
        "|",
        ">",
        "'",
        '"',
        "\\",
        "#",
        "--",
        "-",
    ),
    *("~nosuchuser", "~nosuchuser/x", "a" * 300, "a/" * 3000, "x" * 100_000, "/dev/null/x", "/proc/nothing", "..", "."),
    *(
        "a\0b",
        "\ud800",
        "\udcff\udcfe",
        "\u202e",
        "\x1b[31m",
        "\n",
        "\t",
        "\r",
        "\x7f",
        "é",
        "汉",
        "😀",
        "\ufeff",
        "a\nb",
    ),
    *("[" * 2000, "{a: " * 2000, "[" * 100 + "]" * 100, "9" * 5000, "9" * 30, "-" + "9" * 30, "1e5", "0.0", "[nan]"),
    *("http://[::1", "http://", "ftp://x", "http://x:99999999", "http://u:p@x/?k=1", "localhost", "http:// x"),
)
KEYS = (
    *("NAME", "SAVE_DIR", "RESUME_FROM", "WEIGHT", "WANDB", "PIPELINE", "SCORING", "DATASETS.TEST", "DATASETS.ROOT"),
    *(
        "LLM.BITS",
        "LLM.DTYPE",
        "LLM.ATTENTION",
        "CRAYON.MAP_SCALE",
        "SEGMENTER.NAME",
        "SEGMENTER.PATH",
        "SEGMENTER.CLASSES",
    ),
    *(
        "SEGMENTER.THRESHOLD",
        "SEGMENTER.RESIZE",
        "SEGMENTER.SHORT_SIDE",
        "EVAL.LIMIT",
        "EVAL.WORKERS",
        "EVAL.TIMEOUT_HOURS",
    ),
    *("EVAL.ON_CHANGE", "JUDGE.BASE_URL", "JUDGE.TIMEOUT", "JUDGE.CACHE", "JUDGE.USE", "JUDGE.PRICE_INPUT"),
    *("POPE.TEST.PROMPT", "POPE.TEST.BATCH_SIZE_TOTAL", "MME.TEST.NUM_BEAMS", "POPE", "POPE.TEST", "LLM", "MODEL.NAME"),
    *("OPTIMIZER.LR", "GQA.INPUT.IMAGE_SIZE", "GQA.TEST.TEMPERATURE", "VERBOSE", "BENCHMARKS", "_BASE_", "RESUME"),
    *("DATA.KINDS", "DATA.CONVERSATIONS", "DATA.SPOIL", "DATA.PANOPTIC.IMAGES", "XDECODER.SCALE", "XDECODER.SIDE"),
    *(
        "XDECODER.SIZES",
        "TRAIN.LR",
        "TRAIN.LR_END",
        "TRAIN.STAGE",
        "TRAIN.STEPS",
        "TRAIN.WARMUP",
        "TRAIN.SEED",
        "LORA.R",
    ),
)
OPTIONS = ("--check", "--print-config", "--conf_files", "--overrides", "--help", "--num", "--out", "--nope", "-x")
FILES = (
    "configs/collavo_step2.yaml",
    "configs/collavo_tiny.yaml",
    "configs/vl_test.yaml",
    "configs/collavo_tiny_train.yaml",
    "configs/segmenter_xdecoder_tiny.yaml",
    "configs/benchmarks/pope.yaml",
)
ZOO = """\
name: zoo
title: Zoo
source: "made up"
data:
  file: zoo.jsonl
  columns: {id: nr, question: ask, image: photo, answer: truth}
  answer: yes_no
prompt: "{question}\\nAnswer."
generate: {num_beams: 3, max_new_tokens: 5}
scorer: {kind: yes_no}
expected: {metric: accuracy, value: 83.0, tolerance: 0.5, from: nowhere}
"""
ODD_DECLARATIONS = (
    *(
        ("{1: 2}", "yes_no"),
        ("{file: [a]}", "yes_no"),
        ("{file: ''}", "yes_no"),
        ("{file: 'a{split}', splits: [1]}", "yes_no"),
    ),
    *(
        ("{file: ../../etc/x.json}", "{kind: nope}"),
        ("{file: zoo.jsonl}", "{kind: choice, rule: [x]}"),
        ("{reader: pope, splits: 3}", "x"),
    ),
    *(
        ("{file: zoo.jsonl}", "{kind: choice, 1: 2}"),
        ("{file: zoo.jsonl}", "{kind: __init__}"),
        ("{reader: files}", "{kind: options}"),
    ),
    *(
        ("{file: zoo.jsonl, format: nope}", "yes_no"),
        ("{file: zoo.exe}", "yes_no"),
        ("{file: zoo.jsonl, columns: [a]}", "graded"),
    ),
    *(
        ("{file: '\\0'}", "yes_no"),
        ("{file: ~nosuch/x}", "mme"),
        ("{file: " + "x" * 5000 + ".jsonl}", "gqa"),
        ("{reader: ../x}", "yes_no"),
    ),
)
TEXTS = (
    *(
        "NAME: [",
        "NAME: a\nNAME: b\n",
        "? {a: b}\n: c\n",
        "? [a]\n: b\n",
        "&a {b: *a}\n",
        "a: &a [*a]\n",
        "\tNAME: x\n",
    ),
    *(
        "NAME:\tx\n",
        "NAME: x\n\tLLM: y\n",
        "- a\n- b\n",
        "x",
        "",
        "---\na: b\n---\nc: d\n",
        "%YAML 9.9\n---\n",
        "NAME: !x y\n",
    ),
    *(
        "NAME: 2024-01-01\nEVAL: {LIMIT: 1_0}\n",
        "EVAL: {LIMIT: 1:30}\n",
        "EVAL: {LIMIT: 0x1F}\n",
        "EVAL: {TIMEOUT_HOURS: .inf}\n",
    ),
    *(
        "EVAL: {TIMEOUT_HOURS: .nan}\n",
        "NAME: !!binary aGk=\n",
        "NAME: !!int x\n",
        "NAME: !!timestamp x\n",
        "1: 2\n",
        "null: 1\n",
    ),
    *(
        "true: 1\n",
        "<<: {NAME: x}\n",
        "<<: 3\n",
        "<<: [{NAME: x}, 3]\n",
        "=: 3\n",
        "LLM: 4\n",
        "LLM: [4]\n",
        "LLM:\n",
        "LLM: {}\n",
    ),
    *(
        "BENCHMARKS: 3\n",
        "BENCHMARKS: {a: 3}\n",
        "BENCHMARKS: {1: {data: {}}}\n",
        "BENCHMARKS: {x: {data: {}, prompt: q}}\n",
    ),
    *(
        "_BASE_: [a]\n",
        "_BASE_: ~nosuch\n",
        "_BASE_: 'a\\0b'\n",
        "_BASE_: " + "x" * 5000 + "\n",
        "_BASE_: .\n",
        "_BASE_:\n",
    ),
    *('NAME: "\\ud800"\n', "NAME: ${nope}\n", "NAME: '???'\n", "a: " * 3, "{" * 3000, "[" * 3000, "a:\n" + " b:\n" * 3),
    "\n".join("  " * i + "a:" for i in range(400)) + "\n",
    "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}, *a{i - 1}]\n" for i in range(1, 40)),
    "a0: &a0 {x: 1}\n" + "".join(f"a{i}: &a{i} {{<<: [*a{i - 1}, *a{i - 1}]}}\n" for i in range(1, 40)),
    "DATA: {CONVERSATIONS: [{FILE: x}, 3, {NOPE: 1}, [a]]}\nXDECODER: {SIZES: {a: {1: [x, {b: c}]}}, SCALE: [1, a]}\n",
    "name: zoo\ndata: {file: x.jsonl}\nprompt: '{a.b}'\nscorer: yes_no\n",
    "name: zoo\ndata: {reader: nope}\nprompt: '{question}'\nscorer: yes_no\n",
    "name: [zoo]\ndata: 3\nprompt: {a: b}\nscorer: {kind: 3}\nexpected: [3]\ngenerate: {num_beams: x}\n",
    *(f"name: zoo\ndata: {data}\nprompt: '{{question}}'\nscorer: {scorer}\n" for data, scorer in ODD_DECLARATIONS),
    "name: zoo\ndata: {file: x.jsonl, columns: {1: 2}, splits: 3}\nprompt: q\nscorer: {kind: choice, rule: [x]}\n",
)


class Mistakes:
    """Draws mistakes.

    Args:
        seed: all is drawn from it.
        folder: where files with mistakes are written.
        root: the repository.
    """

    def __init__(self, seed: int, folder: Path, root: Path) -> None:
        self._random = random.Random(seed)
        self._folder, self._root = folder, root
        self._files = 0

    def line(self, words: list[str]) -> list[str]:
        """A command line with one to three mistakes."""
        for _ in range(self._random.choice((1, 1, 2, 3))):
            words = self._random.choice(self._kinds())(list(words))
        return words

    def _kinds(self) -> tuple[Callable[[list[str]], list[str]], ...]:
        return (
            *(self._another_value,) * 5,
            *(self._another_pair,) * 6,
            *(self._another_file,) * 4,
            *(
                self._lost,
                self._doubled,
                self._swapped,
                self._joined,
                self._cut,
                self._misspelt,
                self._option,
                self._strange,
            ),
        )

    def _place(self, words: list[str]) -> int:
        return self._random.randrange(len(words)) if words else 0

    def _another_value(self, words: list[str]) -> list[str]:
        places = range(words.index("--overrides") + 2, len(words), 2) if "--overrides" in words else range(len(words))
        if places:
            words[self._random.choice(places)] = self._random.choice(VALUES)
        return words

    def _another_pair(self, words: list[str]) -> list[str]:
        if "--overrides" not in words:
            words.append("--overrides")
        return [*words, self._random.choice(KEYS), self._random.choice(VALUES)]

    def _another_file(self, words: list[str]) -> list[str]:
        """A configuration file that is damaged: other text, or a shipped one with changes."""
        text = self._random.choice(TEXTS)
        if self._random.random() < 0.6:
            file = self._random.choice((*FILES, *(None,) * 4))
            text = self._damaged(ZOO if file is None else (self._root / file).read_text(encoding="utf-8"))
        self._files += 1
        path = self._folder / f"mistake-{self._files}.yaml"
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        return [*words[:1], "--conf_files", str(path), *words[1:]]

    def _damaged(self, text: str) -> str:
        lines = text.split("\n")
        for _ in range(self._random.choice((1, 2, 5))):
            at = self._random.randrange(len(lines))
            line, kind = lines[at], self._random.randrange(7)
            if kind == 0:
                del lines[at : at + 1]
                lines = lines or [""]
            elif kind == 1:
                lines.insert(at, line)
            elif kind == 2:
                lines[at] = self._random.choice(("\t", " ", "  ", "- ", "? ", "&a ", "*a", "!!str ", "{", "[")) + line
            elif kind == 3 and ":" in line:
                lines[at] = f"{line.split(':')[0]}: {self._random.choice(VALUES)}"
            elif kind == 4 and ":" in line:
                lines[at] = f"{self._random.choice(VALUES)}: {line.split(':', 1)[1]}"
            elif kind == 5 and line:
                cut = self._random.randrange(len(line))
                lines[at] = line[:cut] + self._random.choice("\0\ud800\x1b\t:{}[]#&*!|>'\"%@`,?-é") + line[cut + 1 :]
            else:
                other = self._random.randrange(len(lines))
                lines[at], lines[other] = lines[other], lines[at]
        return "\n".join(lines)

    def _lost(self, words: list[str]) -> list[str]:
        at = self._place(words)
        return words[:at] + words[at + 1 :]

    def _doubled(self, words: list[str]) -> list[str]:
        at = self._place(words)
        return words[:at] + words[at : at + 1] * 2 + words[at + 1 :]

    def _swapped(self, words: list[str]) -> list[str]:
        at, other = self._place(words), self._place(words)
        if words:
            words[at], words[other] = words[other], words[at]
        return words

    def _joined(self, words: list[str]) -> list[str]:
        at = self._place(words)
        return [*words[:at], "".join(words[at : at + 2]), *words[at + 2 :]]

    def _cut(self, words: list[str]) -> list[str]:
        return words[: self._place(words)]

    def _misspelt(self, words: list[str]) -> list[str]:
        at = self._place(words)
        if words and words[at]:
            letter = self._random.randrange(len(words[at]))
            words[at] = (
                words[at][:letter]
                + self._random.choice(("", "X", "\0", "\ud800", ".", " ", "é"))
                + words[at][letter + 1 :]
            )
        return words

    def _option(self, words: list[str]) -> list[str]:
        at = self._place(words)
        return [*words[:at], self._random.choice(OPTIONS), *words[at:]]

    def _strange(self, words: list[str]) -> list[str]:
        if words:
            words[self._place(words)] = self._random.choice(VALUES)
        return words
