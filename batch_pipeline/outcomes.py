"""The ledger's outcomes laid beside the plan's units: by columns, nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batch_pipeline.ledger import WHOLE

if TYPE_CHECKING:
    import polars as pl

OUTCOME = ["code", "message", "result_size", "rows", "failed_rows"]
"""What an outcome is: an error has a code, a result a size; a unit of which nothing is recorded has neither."""


def with_outcomes(units: pl.DataFrame, ledger: pl.DataFrame | None) -> pl.DataFrame:
    """The plan's units with their outcomes, and `whole`: the result is of the whole input, put together before.

    A result counts if it was made from the source, and of a divided CSV from the version, that the plan has; one that
    was put together, if none of its parts was made anew since.
    """
    import polars as pl

    if ledger is None:
        nothing = {"code": pl.String, "message": pl.String, "result_size": pl.Int64, "rows": pl.Int64}
        absent = {name: pl.lit(None, kind) for name, kind in (nothing | {"failed_rows": pl.Int64}).items()}
        return units.with_columns(**absent, whole=pl.lit(value=False))
    last = ledger.with_row_index("at").unique(["line", "part"], keep="last")
    newest = pl.col("at") == pl.col("at").max().over("line")
    wholes = last.filter(newest & (pl.col("part") == WHOLE)).select(
        "line", *(pl.col(name).alias(f"whole_{name}") for name in OUTCOME)
    )
    fits = (pl.col("its_digest") == pl.col("digest")) & (
        (pl.col("parts") == 1) | (pl.col("its_etag") == pl.col("etag"))
    )
    counts = pl.col("code").is_not_null() | fits.fill_null(value=False)
    whole = pl.col("whole_result_size").is_not_null()
    return (
        units.join(last, on=["line", "part"], how="left", maintain_order="left")
        .join(wholes, on="line", how="left", maintain_order="left")
        .with_columns(
            pl.when(whole).then(f"whole_{name}").otherwise(pl.when(counts).then(name)).alias(name) for name in OUTCOME
        )
        .with_columns(whole=whole)
        .drop("at", "its_digest", "its_etag", *(f"whole_{name}" for name in OUTCOME))
    )


def missing_lines(units: pl.DataFrame) -> pl.Series:
    """The lines, in order, that have a unit of which nothing is recorded."""
    import polars as pl

    return units.filter(pl.col("code").is_null() & pl.col("result_size").is_null())["line"].unique().sort()


def settled(units: pl.DataFrame) -> pl.DataFrame:
    """The outcomes of the inputs that are not to be put together: a divided CSV with a part that failed has failed."""
    import polars as pl

    divided = (pl.col("parts") > 1) & ~pl.col("whole")
    failed = units.filter(divided & pl.col("code").is_not_null()).sort("line", "part").unique("line", keep="first")
    return pl.concat([units.filter(~divided & (pl.col("part") == 0)), failed]).select("line", *OUTCOME)


def to_put_together(units: pl.DataFrame) -> pl.DataFrame:
    """The parts of divided CSVs of which none failed, in order."""
    import polars as pl

    divided = units.filter((pl.col("parts") > 1) & ~pl.col("whole"))
    good = pl.col("code").is_null().all().over("line")
    return divided.filter(good).sort("line", "part")
