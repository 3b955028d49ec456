"""Routes of repositories: who am I, create, delete, move, settings, info, lists, branches and tags."""

from starlette.responses import Response

from medllm.localhub.store import accounts, buckets, commits, refs, repos
from medllm.localhub.store.repos import Repo
from medllm.localhub.validation import KINDS, HubRefusal, bad_request, no_revision, unauthorized
from medllm.localhub.web import commit, metadata, spaces
from medllm.localhub.web.metadata import describe
from medllm.localhub.web.request import Call, Fields, Routes, answer

routes = Routes()

_ONE = "/api/{kinds}/{namespace}/{name}"


@routes.add("GET", "/api/whoami-v2")
def whoami(call: Call) -> Response:
    """Describe the caller, with its organisations and the role of its token."""
    caller = call.caller
    if caller.id is None:
        raise unauthorized("Invalid username or password.")
    with call.store.database.read() as connection:
        orgs = accounts.organisations(connection, caller.id)
    token = {"displayName": caller.label, "role": caller.role, "createdAt": caller.created}
    return answer(
        {
            "type": "user",
            "id": f"{caller.id:024x}",
            "name": caller.name,
            "fullname": caller.name,
            "email": f"{caller.name}@localhub",
            "emailVerified": True,
            "isPro": False,
            "canPay": False,
            "periodEnd": None,
            "avatarUrl": "",
            "orgs": [
                {
                    "type": "org",
                    "id": f"{org['id']:024x}",
                    "name": org["name"],
                    "fullname": org["name"],
                    "roleInOrg": org["role"],
                }
                | {"email": None, "canPay": False, "periodEnd": None, "isEnterprise": False, "avatarUrl": ""}
                for org in orgs
            ],
            "auth": {"type": "access_token", "accessToken": token},
        }
    )


def _wanted(call: Call, fields: Fields) -> tuple[str, tuple[str, str]]:
    """Kind and full name in the body of create and delete."""
    kind = fields.text("type", "model")
    if kind not in KINDS.values():
        raise bad_request(f"'type' must be one of {', '.join(KINDS.values())}")
    name = fields.text("name", most=300)
    namespace, slash, short = name.partition("/")
    if slash:
        return kind, (namespace, short)
    return kind, (fields.optional("organization") or call.caller.name, name)


def _address(call: Call, repo: Repo) -> str:
    return f"{call.base}/{repo.url_path}"


@routes.add("POST", "/api/repos/create", body="memory")
def create(call: Call) -> Response:
    """A new repository with its first commit."""
    fields = call.json()
    if call.caller.anonymous:
        raise unauthorized("Creating a repository needs a token")
    kind, full = _wanted(call, fields)
    sdk = fields.optional("sdk") if kind == "space" else None
    try:
        with commit.first_files(call.store) as (operations, pack), call.store.database.write() as connection:
            repo = repos.create(connection, call.caller, kind, full, private=bool(fields.private()), sdk=sdk)
            if kind == "space":
                spaces.configure_space(connection, repo, fields)
            commits.commit(
                connection,
                call.store.files,
                call.caller,
                repo=repo,
                reference=refs.HEADS + "main",
                header=commits.Header("initial commit"),
                operations=operations,
                pack=pack,
            )
    except HubRefusal as refusal:
        if refusal.status != 409:
            raise
        with call.store.database.read() as connection:
            repo = repos.readable(connection, call.caller, kind, full)
        body = {"error": str(refusal), "url": _address(call, repo), "name": repo.full, "id": f"{repo.id:024x}"}
        return answer(body, 409, {"X-Error-Message": str(refusal), "X-Error-Code": "RepoExists"})
    return answer({"url": _address(call, repo), "name": repo.full, "id": f"{repo.id:024x}"})


@routes.add("DELETE", "/api/repos/delete", body="memory")
def delete(call: Call) -> Response:
    """Remove a repository with its history."""
    kind, full = _wanted(call, call.json())
    with call.store.database.write() as connection:
        repos.delete(connection, repos.writable(connection, call.caller, kind, full))
    return answer({})


@routes.add("POST", "/api/repos/move", body="memory")
def move(call: Call) -> Response:
    """Give a repository another name."""
    fields = call.json()
    kind = fields.text("type", "model")
    source, target = fields.text("fromRepo").split("/"), fields.text("toRepo").split("/")
    if kind not in (*KINDS.values(), "bucket") or len(source) != 2 or len(target) != 2:
        raise bad_request(
            "'fromRepo' and 'toRepo' must read namespace/name, and 'type' model, dataset, space or bucket"
        )
    with call.store.database.write() as connection:
        if kind == "bucket":
            buckets.move(connection, call.caller, (source[0], source[1]), (target[0], target[1]))
            return answer({})
        repo = repos.writable(connection, call.caller, kind, (source[0], source[1]))
        repos.move(connection, call.caller, repo, (target[0], target[1]))
    return answer({})


@routes.add("PUT", "/api/{kinds}/{namespace}/{name}/settings", body="memory")
def settings(call: Call) -> Response:
    """Change who may see a repository and its content."""
    fields = call.json()
    private = fields.private()
    gated = fields.get("gated")
    if gated not in (None, False, "auto", "manual"):
        raise bad_request("'gated' must be false, auto or manual")
    with call.store.database.write() as connection:
        repo = repos.writable(connection, call.caller, call.kind, call.full)
        if private is not None:
            connection.execute("UPDATE repos SET private = ? WHERE id = ?", (private, repo.id))
        if gated is not None:
            connection.execute("UPDATE repos SET gated = ? WHERE id = ?", (gated or None, repo.id))
    return answer(
        {"private": repo.private if private is None else private, "gated": repo.gated if gated is None else gated}
    )


@routes.add("GET", "/api/{kinds}/{namespace}/{name}", "/api/{kinds}/{namespace}/{name}/revision/{revision}")
def info(call: Call) -> Response:
    """A repository at a revision."""
    with call.store.database.read() as connection:
        repo = repos.readable(connection, call.caller, call.kind, call.full)
        revision = call.args.get("revision", "main")
        commit_id = refs.resolve(connection, repo, revision)
        with_blobs = call.flag("blobs")
        body = describe(connection, call.store.files, repo, commit_id=commit_id, with_blobs=with_blobs)
        return answer({**body, "sha": refs.shown(revision, commit_id)})


@routes.add("GET", "/api/{kinds}/{namespace}/{name}/auth-check", "/api/{kinds}/{namespace}/{name}/auth-check/write")
def auth_check(call: Call) -> Response:
    """Check whether the caller may read the repository's content."""
    with call.store.database.read() as connection:
        repos.open_gate(connection, call.caller, repos.readable(connection, call.caller, call.kind, call.full))
    return answer({})


@routes.add("GET", "/api/{kinds}")
def listing(call: Call) -> Response:
    """List the repositories the caller may see, newest change first, one page at a time."""
    query, limit = call.query, call.number("limit", call.store.limits.page, call.store.limits.page)
    where, values = ["kind = ?", "id < ?"], [call.kind, call.number("cursor", 2**40, 2**40)]
    for name, column in (("author", "namespace = ?"), ("search", "namespace || '/' || name LIKE '%' || ? || '%'")):
        if name in query:
            where.append(column)
            values.append(query[name])
    wanted, entries, cursor = set(query.getlist("filter")), list[dict[str, object]](), None
    with call.store.database.read() as connection:
        rows = connection.execute(f"SELECT * FROM repos WHERE {' AND '.join(where)} ORDER BY id DESC", values)
        for row in rows:
            repo = repos.from_row(row)
            head = refs.target(connection, repo, refs.HEADS + "main")
            if head is None or (repo.private and not call.caller.belongs(repo.namespace)):
                continue
            if len(entries) == limit:
                cursor = int(str(entries[-1]["_id"]), 16)
                break
            described = describe(connection, call.store.files, repo, commit_id=head, siblings=call.flag("full"))
            if wanted <= set(map(str, described["tags"] if isinstance(described["tags"], list) else [])):
                entries.append(described)
    return answer(entries, headers=call.next_page(cursor))


@routes.add("POST", "/api/validate-yaml", body="memory")
def validate_yaml(call: Call) -> Response:
    """What the Hub would refuse in a card's metadata, and what it would warn of."""
    text = call.json().text("content", most=4_000_000)
    errors, warnings = metadata.check(text)
    body = {
        "errors": [{"message": error} for error in errors],
        "warnings": [{"message": warning} for warning in warnings],
    }
    if not errors:
        return answer(body)
    message = f"Invalid metadata in README.md: {'; '.join(errors)}"
    return answer(body | {"error": message}, 400, {"X-Error-Code": "BadRequest", "X-Error-Message": message})


@routes.add("GET", _ONE + "/refs")
def references(call: Call) -> Response:
    """List every branch and tag; a client that asks for pull requests gets an empty list, as there are none here."""
    with call.store.database.read() as connection:
        repo = repos.readable(connection, call.caller, call.kind, call.full)
        body = {
            key: [
                {"name": name, "ref": full, "targetCommit": commit}
                for name, full, commit in refs.listing(connection, repo, prefix)
            ]
            for key, prefix in (("branches", refs.HEADS), ("tags", refs.TAGS))
        }
    if call.flag("include_prs") or call.flag("include_pull_requests"):
        body["pullRequests"] = []
    return answer({"converts": [], **body})


@routes.add("POST", _ONE + "/branch/{branch...}", body="memory")
def create_branch(call: Call) -> Response:
    """A new branch, from main's head or another revision."""
    start = call.json().optional("startingPoint")
    with call.store.database.write() as connection:
        repo = repos.writable(connection, call.caller, call.kind, call.full)
        commit = refs.resolve(connection, repo, start or "main")
        refs.create(connection, repo, refs.HEADS, call.args["branch"], commit)
    return answer({})


@routes.add("DELETE", _ONE + "/branch/{branch...}")
def delete_branch(call: Call) -> Response:
    """Remove a branch of a repository."""
    with call.store.database.write() as connection:
        repo = repos.writable(connection, call.caller, call.kind, call.full)
        refs.delete(connection, repo, refs.HEADS, call.args["branch"])
    return answer({})


@routes.add("POST", _ONE + "/tag/{revision...}", body="memory")
def create_tag(call: Call) -> Response:
    """A new tag on a revision."""
    name = call.json().text("tag", most=300)
    with call.store.database.write() as connection:
        repo = repos.writable(connection, call.caller, call.kind, call.full)
        refs.create(connection, repo, refs.TAGS, name, refs.resolve(connection, repo, call.args["revision"]))
    return answer({})


@routes.add("DELETE", _ONE + "/tag/{tag...}")
def delete_tag(call: Call) -> Response:
    """Remove a tag of a repository."""
    with call.store.database.write() as connection:
        repo = repos.writable(connection, call.caller, call.kind, call.full)
        if not call.args["tag"]:
            raise no_revision("")
        refs.delete(connection, repo, refs.TAGS, call.args["tag"])
    return answer({})
