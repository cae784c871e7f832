"""``rtsep plugins``: what effects there are, which plugin files can be used, and what can be set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rtsep.cli import common
from rtsep.errors import PluginError

if TYPE_CHECKING:
    from rtsep.plugins.scan import ScanResult


@click.group("plugins")
def command() -> None:
    """List effects and plugins, try new ones, show their parameters."""


@command.command("list")
@common.json_option
def list_command(as_json: bool) -> None:
    """List the built-in effects, and the plugin files of this machine with what is known of them."""
    from rtsep.plugins.catalog import EFFECTS
    from rtsep.plugins.scan import find_files, read_cache, stamp_of

    known, files = read_cache(), find_files()
    files += [Path(path) for path in known if Path(path) not in files and Path(path).exists()]
    rows: list[dict[str, Any]] = []
    for file in files:
        result = known.get(str(file))
        fresh = result is not None and result.stamp == stamp_of(file)
        row: dict[str, Any] = {"path": str(file), "status": "not tried yet", "detail": "", "plugins": []}
        if result is not None and fresh:
            row.update(status=result.status, detail=result.detail, plugins=[_short(x) for x in result.plugins])
        rows.append(row)
    if as_json:
        effects = [{"name": effect.name, "summary": effect.summary} for effect in EFFECTS.values()]
        common.put_json({"effects": effects, "files": rows})
        return
    for line in common.table([[effect.name, effect.summary] for effect in EFFECTS.values()]):
        click.echo(line)
    if not rows:
        common.talk("No VST3 files in the usual folders. Others: rtsep plugins scan FOLDER")
        return
    click.echo()
    for line in common.table([[Path(row["path"]).stem, _said(row), row["path"]] for row in rows]):
        click.echo(line)
    if any(row["status"] == "not tried yet" for row in rows):
        common.talk("To try what was not tried yet: rtsep plugins scan")


@command.command("scan")
@click.argument("places", nargs=-1, metavar="[FILE|FOLDER]...", type=click.Path(path_type=Path))
@click.option("--rescan", is_flag=True, help="Try again what is known, crashers and hangers included.")
@click.option("--timeout", type=click.FloatRange(0.5), help="Seconds for one file; 30 when left out.")
@common.json_option
def scan_command(places: tuple[Path, ...], rescan: bool, timeout: float | None, as_json: bool) -> None:
    """Load and play every plugin file once, each in a process of its own that may crash or hang.

    \b
    rtsep plugins scan                       the usual folders
    rtsep plugins scan ~/plugins/New.vst3    one file

    Results are kept; rtsep loads no file that did not pass.
    """
    from rtsep.plugins.scan import scan_all

    def show(done: int, total: int, result: ScanResult | None) -> None:
        if result is not None and not as_json:
            row = {"status": result.status, "detail": result.detail, "plugins": [_short(x) for x in result.plugins]}
            click.echo(f"{done}/{total}  {Path(result.path).stem:<20}  {_said(row)}")

    results = scan_all(places or None, rescan=rescan, timeout_s=timeout, progress=show)
    if as_json:
        common.put_json(
            [
                {
                    "path": result.path,
                    "status": result.status,
                    "detail": result.detail,
                    "seconds": result.seconds,
                    "plugins": [_short(plugin) for plugin in result.plugins],
                }
                for result in results
            ]
        )
        return
    bad = [result for result in results if not result.ok]
    if not results:
        common.talk("No VST3 files in the usual folders. Name a file or a folder: rtsep plugins scan FOLDER")
    else:
        common.talk(f"{len(results) - len(bad)} of {len(results)} can be used.")


@command.command("info")
@click.argument("plugin")
@common.json_option
def info_command(plugin: str, as_json: bool) -> None:
    """Show the parameters of an effect or a plugin file, with their ranges and defaults."""
    from rtsep.plugins.catalog import find_effect
    from rtsep.plugins.scan import resolve, scan
    from rtsep.plugins.spec import parse_plugin

    spec = resolve(parse_plugin(plugin))
    if not spec.external:
        effect = find_effect(spec.plugin)
        document: dict[str, Any] = {
            "name": effect.name,
            "summary": effect.summary,
            "parameters": [parameter.to_dict() for parameter in effect.parameters],
        }
        _show([document], as_json)
        return
    result = scan(spec.plugin)
    if not result.ok:
        raise PluginError(f"{spec.plugin} {result.status}: {result.detail}. Again: rtsep plugins scan --rescan FILE")
    _show([x for x in result.plugins if spec.name in (None, x["name"])], as_json)


def _show(documents: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        common.put_json(documents)
        return
    for document in documents:
        facts = [str(document[key]) for key in ("summary", "maker", "category", "version") if document.get(key)]
        click.echo(f"{document['name']}  {'  '.join(facts)}")
        if document.get("latency_samples"):
            click.echo(f"  {document['latency_samples']} samples late at 48000 Hz")
        rows = [["  parameter", "allowed", "default", ""]]
        rows += [[f"  {x['name']}", _allowed(x), _text(x["default"]), _fixed(x)] for x in document["parameters"]]
        for line in common.table(rows) if len(rows) > 1 else ["  no parameters"]:
            click.echo(line)


def _allowed(parameter: dict[str, Any]) -> str:
    from rtsep.plugins.catalog import Parameter

    known = {key: value for key, value in parameter.items() if key in Parameter.__dataclass_fields__}
    known["choices"] = tuple(known.get("choices", ()))
    return Parameter(**known).allowed()


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value).lower() if isinstance(value, bool) else str(value)


def _fixed(parameter: dict[str, Any]) -> str:
    return "" if parameter.get("live", True) else "loads anew"


def _short(plugin: dict[str, Any]) -> dict[str, Any]:
    return {key: plugin[key] for key in ("name", "maker", "category", "instrument", "latency_samples", "load_s")}


def _said(row: dict[str, Any]) -> str:
    if row["status"] != "ok":
        return f"{row['status']}: {row['detail']}" if row["detail"] else str(row["status"])
    late = max((plugin["latency_samples"] for plugin in row["plugins"]), default=0)
    kinds = "instrument" if all(plugin["instrument"] for plugin in row["plugins"]) else "ok"
    return kinds + (f", {late} samples late" if late else "")
