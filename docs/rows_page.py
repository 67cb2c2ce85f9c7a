"""docs/rows.md, written before each build: every published row with what it says and the file it stands in."""

from pathlib import Path

from bnc_repro.evidence.rows import UNITS, published
from bnc_repro.recipe.profiles import experiments

HEAD = """# The rows

Each number of the site is made from rows. A row is one training of one network under one recipe and seed; it holds
the recipe, the metrics, the curve, the fingerprints of recipe, data and source, the commit and the machine. Here is
every published one, to download. A row is *current* if today's code would give its digits (`results/equivalent.csv`
joins code that was proved to), and *stale* if it was made by older code for which nobody has proved that: the number
stays what that code gave.
"""


def _section(profile: str, experiment: str) -> list[str]:
    rows = published(profile, experiment)
    if not rows:
        return []
    lines = [
        f"### {profile}: {experiment}",
        "",
        f"| arm | {UNITS[rows[0]['headline']]}, by seed | source | commit |",
        "|---|---|---|---|",
    ]
    for arm in dict.fromkeys((row["arm"], row["recipe"]["data"]["root"]) for row in rows):
        of_arm = [row for row in rows if (row["arm"], row["recipe"]["data"]["root"]) == arm]
        links = []
        for row in of_arm:
            value = row["metrics"].get(row["headline"])
            text = "diverged" if value is None else f"{value:.{2 if row['headline'] == 'top1' else 3}f}"
            links.append(f"[{text}](../results/{profile}/{experiment}/{row['fingerprint']}.json)")
        current = "current" if all(row["current"] for row in of_arm) else "**stale**"
        commits = ", ".join(dict.fromkeys(f"`{row['commit'][:7]}`" for row in of_arm))
        lines.append(f"| {arm[0]} ({Path(arm[1]).name}) | {', '.join(links)} | {current} | {commits} |")
    return [*lines, ""]


def write(root: Path) -> None:
    """Write docs/rows.md of the clone `root` from results/."""
    text = [HEAD]
    for profile in ("sample", "small", "presets"):
        text += [f"## {profile}", ""]
        for experiment in experiments(profile):
            text += _section(profile, experiment)
    (root / "docs" / "rows.md").write_text("\n".join(text))
