"""The commands of the embedded Hub: serve it, hand out tokens, set a shell up for it, give space back."""

import json
import shlex
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Optional

import typer

from medllm.cli.app import app
from medllm.errors import HubError

if TYPE_CHECKING:
    from medllm.localhub import Store

hub = typer.Typer(name="hub", help="The embedded Hub, for clients without internet.", no_args_is_help=True)
token = typer.Typer(name="token", help="The embedded Hub's tokens: give out, list, revoke.", no_args_is_help=True)
hub.add_typer(token)
app.add_typer(hub)

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The hub's folder.", show_default=False)]
Role = Annotated[Literal["read", "write"], typer.Option("--role", help="What the token may do.")]
PortOption = Annotated[int, typer.Option("--port", envvar="MEDLLM_HUB_PORT", help="The port the hub listens on.")]
JsonOption = Annotated[bool, typer.Option("--json", help="For programs.")]


@contextmanager
def _store(folder: Path, *, new: bool) -> Iterator["Store"]:
    from medllm.localhub import Store

    if not new and not (folder / "hub.sqlite").is_file():
        raise HubError(
            "command.no-hub",
            f"{folder}: holds no hub. Create one with `medllm hub serve {folder}`, or name another folder.",
        )
    store = Store(folder)
    try:
        yield store
    finally:
        store.close()


@hub.command()
def serve(
    folder: Folder,
    host: Annotated[str, typer.Option("--host", help="Beyond loopback every request needs a token.")] = "127.0.0.1",
    port: PortOption = 8717,
    allow_jobs: Annotated[
        bool, typer.Option("--allow-jobs", help="Let the owner run commands on this machine with `hf jobs`.")
    ] = False,
) -> None:
    """Serve a folder as a Hub until it is stopped.

    A missing or empty folder becomes a new hub.
    """
    from medllm.localhub import serve as hub_of

    running = hub_of(folder, port, host=host, allow_jobs=allow_jobs)
    print(f"The hub in {running.store.folder} belongs to {running.store.owner}. Stop it with Ctrl-C.", file=sys.stderr)
    print(f'Its clients\' shells: eval "$(medllm hub env {shlex.quote(str(folder))} --user NAME)"', file=sys.stderr)
    print(running.url, flush=True)
    running.run()


@hub.command()
def env(
    folder: Folder,
    user: Annotated[str, typer.Option("--user", help="Who will work in the shell.", show_default=False)],
    port: PortOption = 8717,
    host: Annotated[str, typer.Option("--host", help="The hub's address.")] = "127.0.0.1",
    role: Role = "write",
    days: Annotated[int, typer.Option("--days", min=1, help="How long the new token is good.")] = 30,
) -> None:
    """Print the variables that point a shell at the hub.

    Hugging Face tools read them; a new token for the user is among them.
    """
    from medllm.localhub.store import accounts

    with _store(folder, new=True) as store, store.database.write() as connection:
        if accounts.find(connection, user) is None and not accounts.is_empty(connection):
            mend = f"medllm hub token add {shlex.quote(str(folder))} {shlex.quote(user)}"
            raise HubError(
                "command.unknown-user", f"{folder}: the hub has no user {user}. Create the user with: {mend}"
            )
        fresh = accounts.issue(connection, accounts.add_user(connection, user), role=role, label="env", days=days)
    shown = f"[{host}]" if ":" in host else host
    print(f"export HF_ENDPOINT={shlex.quote(f'http://{shown}:{port}')}")
    print(f"export HF_TOKEN={fresh}")
    # A cache of its own: ORG/NAME on this hub is not the ORG/NAME of the public one.
    print(f'export HF_HOME="$HOME/.cache/medllm/hub-{store.id}"')
    print(f'export NO_PROXY="{",".join(dict.fromkeys([shown, "127.0.0.1", "localhost"]))}${{NO_PROXY:+,$NO_PROXY}}"')


@hub.command()
def mirror(
    repo: Annotated[str, typer.Argument(metavar="ORG/NAME[@REV]", help="A model or dataset.", show_default=False)],
    into: Annotated[
        Optional[str],  # noqa: UP045  typer shows it so
        typer.Option("--into", metavar="URL|DIR", help="The Hub that gets it.", show_default=False),
    ] = None,
    source: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--from", metavar="URL|DIR", help="A Hub, or a folder of its files; else huggingface.co."),
    ] = None,
    bundle: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--bundle", metavar="DIR", help="Download into a folder that travels on a disk."),
    ] = None,
    kind: Annotated[Literal["model", "dataset"], typer.Option("--kind", help="What it is.")] = "model",
) -> None:
    """Bring a model or dataset into a Hub of your own.

    Files, card and licence are kept, and the revision at the source becomes a tag, so that a recipe names it as before.
    Pickled weights and code are left out. An interrupted mirror resumes, and what is mirrored already is not sent
    again. --from takes the folder that --bundle or `hf download --local-dir` leaves.
    """
    from medllm.cli.console import handle_interrupt, log, open_reporter
    from medllm.hub import mirror as mirrors
    from medllm.hub.client import connect
    from medllm.pipeline.progress import report_push
    from medllm.recipe.base import parse_reference

    place = parse_reference(repo)
    if place.where != "hub" or place.repo_id is None or (into is None) == (bundle is None):
        raise HubError(
            "hub.mirror-arguments",
            f"{repo}: write `medllm hub mirror ORG/NAME@REVISION --into HUB`, or --bundle DIR instead of --into.",
        )
    revision = place.revision or "main"
    with handle_interrupt():
        if bundle:
            print(mirrors.bundle(source, place.repo_id, kind, revision, bundle, say=log).commit)
            return
        original = mirrors.source_of(source, place.repo_id, kind, revision, say=log)
        for name in original.left_out():
            log(f"{name}: is left out, because loading it can run code")
        with (
            open_reporter() as reporter,
            connect(into, bars=False, say=reporter.say) as there,
            tempfile.TemporaryDirectory() as scratch,
            report_push(f"copying into {into}", Path(scratch), reporter.progress),
        ):
            made = mirrors.mirror(original, there)
        print(made)


@hub.command()
def gc(
    folder: Folder,
    grace_hours: Annotated[float, typer.Option("--grace-hours", min=0, help="Keep what is younger than this.")] = 24,
    verify: Annotated[
        bool, typer.Option("--verify", help="Then read everything that stays and check its sha256.")
    ] = False,
    json_: JsonOption = False,
) -> None:
    """Free the space of deleted repositories and old uploads.

    The hub may be running.
    """
    from medllm.localhub.store import removal

    with _store(folder, new=False) as store:
        done = removal.collect(store, timedelta(hours=grace_hours))
        faults = removal.verify(store) if verify else []
    if json_:
        removable = {
            "commits": done.commits,
            "blobs": done.blobs,
            "files": done.files,
            "bytes": done.bytes,
            "faults": faults,
        }
        print(json.dumps(removable))
    else:
        print(f"removed {done.commits} commits, {done.blobs} contents, {done.files} files ({done.bytes} bytes)")
    if faults:
        raise HubError(
            "command.broken-hub",
            f"{folder}: {len(faults)} broken or missing contents. Restore them from a copy: " + "; ".join(faults[:5]),
        )


@token.command("add")
def add_token(
    folder: Folder,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The user; made when new.", show_default=False)],
    role: Role = "write",
    org: Annotated[list[str], typer.Option("--org", help="Also make the user a member; made when new.")] = [],  # noqa: B006
    label: Annotated[str, typer.Option("--label", help="What the token is for.")] = "token",
) -> None:
    """Make a user's token and print it as the last line.

    It is shown only now: the hub keeps no more than its hash.
    """
    from medllm.localhub.store import accounts

    with _store(folder, new=True) as store, store.database.write() as connection:
        user = accounts.add_user(connection, name)
        for member_of in org:
            accounts.join(connection, member_of, user, "write" if role == "write" else "read")
        fresh = accounts.issue(connection, user, role=role, label=label)
    print(f"A token for {name} with the {role} role. It is shown only now:", file=sys.stderr)
    print(fresh)


@token.command("list")
def list_tokens(folder: Folder, json_: JsonOption = False) -> None:
    """List the valid tokens.

    Each line: number, user, role, label, since when, until when.
    """
    from medllm.localhub.store import accounts

    with _store(folder, new=False) as store, store.database.read() as connection:
        rows = [dict(row) for row in accounts.tokens(connection)]
    if json_:
        print(json.dumps(rows))
        return
    for row in rows:
        print("\t".join(str(row[key] or "-") for key in ("id", "name", "role", "label", "created", "expires")))


@token.command("revoke")
def revoke_token(
    folder: Folder,
    number: Annotated[int, typer.Argument(metavar="ID", help="The token's number in the list.", show_default=False)],
) -> None:
    """Make a token worthless from now on."""
    from medllm.localhub.store import accounts

    with _store(folder, new=False) as store, store.database.write() as connection:
        accounts.revoke(connection, number)
    print(f"revoked {number}")
