"""Compile the stored programs with Tracr again: python tests/read_tracr.py.

It needs `pip install 'toymodels[tracr]'`, and writes toymodels/circuits/programs.json.
"""

import json
from pathlib import Path

from toymodels.circuits import tracr

STORED = Path(tracr.__file__).with_name("programs.json")
LENGTH = 4


def compiled(name):
    """The program as Tracr compiles it."""
    from tracr.compiler import compiling, lib
    from tracr.rasp import rasp

    tokens = rasp.tokens
    program, vocabulary = {
        "frac_prevs": lambda: (lib.make_frac_prevs(tokens == "x"), {"a", "b", "x"}),
        "hist": lambda: (lib.make_hist(), {"a", "b", "c"}),
        "reverse": lambda: (lib.make_reverse(tokens), {"a", "b", "c"}),
        "sort": lambda: (
            lib.make_sort(tokens, tokens, max_seq_len=LENGTH, min_key=1),
            {1, 2, 3},
        ),
    }[name]()
    return compiling.compile_rasp_to_model(
        program, vocabulary, max_seq_len=LENGTH, compiler_bos=tracr.START
    )


OUTPUTS = {
    "frac_prevs": "frac_prevs_1",
    "hist": "hist_4",
    "reverse": "reverse_6",
    "sort": "sort_12",
}

if __name__ == "__main__":
    records = {name: tracr.record(compiled(name), output=own) for name, own in OUTPUTS.items()}
    STORED.write_text(json.dumps(records, separators=(",", ":")) + "\n")
