"""The plan of an ablation becomes training files."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.ablation import read_variants, thin_out

PLAN = Path(__file__).parents[2] / "models" / "configs" / "ablation.toml"


@pytest.fixture(autouse=True)
def root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(PLAN.parents[2])


def test_every_variant_of_the_plan_differs_in_what_it_says() -> None:
    base, *others = read_variants(PLAN)
    assert len({variant.folder for variant in [base, *others]}) == len(others) + 1
    for variant in others:
        tables = [name for name in base.document if base.document[name] != variant.document[name]]
        changed = [
            (name, key)
            for name in tables
            if name != "source"
            for key in variant.document[name]
            if variant.document[name][key] != base.document[name].get(key) and key != "run"
        ]
        assert len(changed) + ("source" in tables) + (variant.share < 1) == 1, variant.name


def test_a_smaller_share_is_part_of_a_larger_one(tmp_path: Path) -> None:
    for number in range(16):
        (tmp_path / "songs" / f"{number:02d}").mkdir(parents=True)
        (tmp_path / "songs" / f"{number:02d}" / "bass.wav").write_bytes(b"")

    def kept(share: float) -> set[str]:
        source = {"name": "a", "path": str(tmp_path / "songs"), "kind": "folders", "terms": "", "exclude": ["03"]}
        document = {"source": [source], "validation": {"songs": ["05"]}}
        thin_out(document, share)
        return {f"{number:02d}" for number in range(16)} - set(document["source"][0]["exclude"]) - {"05"}

    assert len(kept(1.0)) == 14
    assert len(kept(0.5)) == 7
    assert kept(0.25) < kept(0.5)
    assert "03" not in kept(1.0)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ('name = "x"\nchange = { "model" = 1 }', "no TABLE.KEY"),
        ('name = "x"\nwithout = ["nobody"]', "no source is called"),
        ('name = "x"\nshare = 0.0', "share must be"),
        ('name = "x"\nshares = 0.5', "unknown"),
    ],
)
def test_what_is_wrong_in_a_plan_is_named(tmp_path: Path, entry: str, words: str) -> None:
    plan = tmp_path / "plan.toml"
    plan.write_text(f'base = "models/configs/bandsplit-low.toml"\nrun = "x"\n[[variant]]\n{entry}\n')
    with pytest.raises(ValueError, match=words):
        read_variants(plan)
