"""Storage of votes: the journal first, then the Hub; the rater is thanked only after a vote can no longer be lost."""

import hmac
import json
import os
import unicodedata
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from threading import Lock
from typing import Any

from medllm.cards import render
from medllm.errors import DataError, HubError
from medllm.exam.prompts import Prompt
from medllm.exam.record import Record
from medllm.hub import Provenance, connect, digest_of
from medllm.page.results import RecordedResults, key_of
from medllm.page.review import RATERS, Assignment, Review, ReviewPair, correction_id, rater_number, vote_id
from medllm.votes.agreement import AgreementTally, Shared
from medllm.votes.journal import Journal, Uploader
from medllm.votes.vote import Vote, pair_of, preference_rows

NAMED = "name:"
"""Prefix of a rater's id in a request if the rater uses a name instead of a number drawn in the browser."""

PERSISTENT = Path("/data")
"""Folder that survives a restart in a Space with persistent storage."""


ASSIGNMENTS = "assignments.json"
"""File in the votes' folder that gives each pair its raters; without it every rater may rate all."""


@dataclass(frozen=True)
class VoteBox:
    """The review of some results and the storage of its votes."""

    review: Review
    journal: Journal
    uploader: Uploader | None = None
    lasting: bool = True
    """Whether the journal's disk survives a restart; if not, a vote is safe only after the Hub has it."""
    key: bytes = b""
    """Secret that turns the raters' chosen names into numbers."""
    _tally: AgreementTally = field(default_factory=AgreementTally, repr=False, compare=False)
    _counting: Lock = field(default_factory=Lock, repr=False, compare=False)
    _reached: dict[str, int] = field(default_factory=dict, repr=False, compare=False)
    """Pairs that each rater has voted on from the first, as far as this was looked up: votes are never taken back."""

    def rater(self, given: str) -> str:
        """Return the rater's number: a browser's number unchanged, a name as a number that does not reveal the name.

        >>> from pathlib import Path
        >>> ballot = VoteBox(None, None, key=b"k")
        >>> ballot.rater("5f3a"), ballot.rater("name: Sato ") == ballot.rater("name:sato")
        ('5f3a', True)
        """
        if not given.startswith(NAMED):
            return given[:64]
        name = unicodedata.normalize("NFKC", given[len(NAMED) :]).strip().casefold()
        return hmac.new(self.key, name.encode(), "sha256").hexdigest()[:32]

    def place(self, rater: str) -> int:
        """Return the first pair on which this rater has not voted."""
        at = self._reached.get(rater, 0)
        while (pair := self.review.pair(rater, at)) is not None and self._voted(vote_id(rater, pair)):
            at += 1
        for old in list(self._reached)[: max(0, len(self._reached) + 1 - RATERS)]:
            self._reached.pop(old, None)  # another request may have done so
        self._reached[rater] = at
        return at

    def closed(self, rater: str, at: int) -> bool:
        """Return whether a rater has voted on every pair of the block of this one: its models may be named."""
        return self.place(rater) >= self.review.block(rater, at).stop > at

    def votes_on(self, rater: str, pair: ReviewPair) -> list[str]:
        """Return the ids of a rater's votes on a pair, each the correction of the one before."""
        listed: list[str] = []
        wanted = vote_id(rater, pair)
        while self._voted(wanted):
            listed.append(wanted)
            wanted = correction_id(wanted)
        return listed

    def own_votes(self, rater: str) -> list[Vote]:
        """Return a rater's votes in blocks that are complete: those of an open block would name its models."""
        place = self.place(rater)
        open_from = self.review.block(rater, place).start if place < self.review.size(rater) else place
        pairs = (self.review.pair(rater, at) for at in range(open_from))
        complete = {pair.identity for pair in pairs if pair is not None}
        number = rater_number(rater)
        return [vote for vote in self.journal.votes() if vote.rater == number and pair_of(vote) in complete]

    def _voted(self, known_as: str) -> bool:
        if self.journal.holds(known_as):
            return True
        try:
            return not self.lasting and self.uploader is not None and known_as in self.uploader.elsewhere()
        except HubError:  # the pair is shown again, and its vote is recognised as already stored
            return False

    def cast(self, form: dict[str, Any]) -> Vote:
        """Store a vote: DataError if it is not a vote, HubError if it is not safe yet; after a return it is safe."""
        vote = self._corrected(self.review.vote(form), form)
        if self.uploader is not None and not self.lasting:
            if vote.vote_id not in self.uploader.elsewhere():
                self.journal.append(vote)
                self.uploader.send()
            return vote
        self.journal.append(vote)
        if self.uploader is not None:
            self.uploader.wake()
        elif not self.lasting:
            raise HubError(
                "preferences.votes-not-kept",
                "votes: this disk does not survive a restart. Set MEDLLM_VOTES to a dataset of yours.",
            )
        return vote

    def _corrected(self, vote: Vote, form: dict[str, Any]) -> Vote:
        """Return a vote that names the one it corrects; DataError once the models of its block are named."""
        rater, at, earlier = form["rater"], form["at"], form.get("supersedes")
        pair = self.review.pair(rater, at)
        assert pair is not None  # the vote on it is read already
        if not earlier:
            return vote
        if earlier not in self.votes_on(rater, pair):
            raise DataError("preferences.outdated-vote", "The vote corrects one that is not here. Load the page again.")
        again = replace(vote, vote_id=correction_id(earlier), supersedes=earlier)
        if self.closed(rater, at) and not self._voted(again.vote_id):
            raise DataError(
                "preferences.closed-block",
                "The vote corrects one of a block whose models are named: its votes are final. Load the page again.",
            )
        return again

    def agreement(self) -> Shared:
        """Return the agreement of the raters so far; skips are left out. Each vote is read and counted once."""
        with self._counting:
            for vote in self.journal.later(self._tally.read):
                self._tally.add(vote)
            return self._tally.figures()


def open_vote_box(results: RecordedResults, folder: Path | None, stack: ExitStack) -> VoteBox | None:
    """Open the vote box that the settings and the environment ask for; return None if there is no place for votes.

    MEDLLM_VOTES names the dataset, MEDLLM_VOTES_FOLDER the journal's folder; a Space with persistent storage has one.
    """
    repo_id, on_space = os.environ.get("MEDLLM_VOTES"), "SPACE_ID" in os.environ
    named = os.environ.get("MEDLLM_VOTES_FOLDER")
    lasting_place = folder or (Path(named) if named else None)
    if lasting_place is None and on_space and os.access(PERSISTENT, os.W_OK):
        lasting_place = PERSISTENT / "medllm-votes"
    if lasting_place is None and not repo_id:
        return None
    journal = Journal(lasting_place or Path("medllm-votes"))
    review = Review(results, _cutoff(results))
    uploader = _uploader(results, repo_id, journal, stack) if repo_id else None
    lasting = lasting_place is not None or not on_space
    box = VoteBox(review, journal, uploader, lasting=lasting, key=_key(journal, lasting=lasting))
    file = journal.folder / ASSIGNMENTS
    return replace(box, review=replace(review, assignment=_assignment(file, box))) if file.is_file() else box


def _assignment(file: Path, box: VoteBox) -> Assignment:
    """Read who rates what: the names of the raters, the number of pairs, and how many raters get each of them."""
    try:
        form = json.loads(file.read_text(encoding="utf-8"))
        names, pairs, overlap = form["raters"], form["pairs"], form["overlap"]
        raters = tuple(box.rater(f"{NAMED}{name}") for name in names)
        good = len(set(raters)) == len(raters) >= overlap >= 1 and pairs >= 1 and all(isinstance(n, str) for n in names)
    except (OSError, ValueError, KeyError, TypeError):
        good = False
    if not good:
        raise DataError(
            "preferences.broken-assignments",
            f'{file}: is no list of who rates what. Write {{"raters": ["NAME", ...], "pairs": 60, "overlap": 2}}: '
            "names that differ, and an overlap of 1 up to their number.",
        )
    return Assignment(raters, int(pairs), int(overlap))


def _key(journal: Journal, *, lasting: bool) -> bytes:
    """Return the secret behind raters' numbers: the journal's own if its disk is lasting, else one the Space keeps."""
    given = os.environ.get("MEDLLM_RATER_KEY") or (None if lasting else os.environ.get("HF_TOKEN"))
    return given.encode() if given else journal.secret


def _uploader(results: RecordedResults, repo_id: str, journal: Journal, stack: ExitStack) -> Uploader:
    hub = stack.enter_context(connect(os.environ.get("MEDLLM_HUB")))

    def rows(votes: Any) -> list[dict[str, Any]]:  # noqa: ANN401  (a sequence of votes)
        return preference_rows(
            votes, lambda vote, model: _reply(results, vote, model), lambda vote: _prompts(results, vote)
        )

    uploader = Uploader(hub, repo_id, journal, rows, card(results, repo_id))
    uploader.start()
    stack.callback(uploader.close)
    return uploader


def _reply(results: RecordedResults, vote: Vote, model: str) -> Record | None:
    return results.record(key_of(vote.benchmark, vote.question_id), model, "explain")


def _prompts(results: RecordedResults, vote: Vote) -> tuple[Prompt, Prompt]:
    """Return the prompt behind both shown replies, with the worked examples of the results and without them."""
    record = _reply(results, vote, vote.model_a)
    assert record is not None  # preference_rows asks only for votes whose replies are found
    return results.prompt_of(record), results.prompt_of(record, shots=0)


def _cutoff(results: RecordedResults) -> date | None:
    """Return the day after which nothing may be learnt, from MEDLLM_CUTOFF or the evaluation; None allows nothing."""
    form = os.environ.get("MEDLLM_CUTOFF") or results.facts.get("cutoff")
    try:
        return date.fromisoformat(str(form)[:10]) if form else None
    except ValueError:
        return None


def card(results: RecordedResults, repo_id: str) -> str:
    """Return the dataset card of the votes."""
    origin = results.origin
    name = origin.name + (f"@{origin.revision}" if origin.revision else "")
    provenance = Provenance("votes", name, {}, (), {}, digest_of("votes", {"results": name}, ()))
    facts = {"results": name, "models": list(results.models), "marking": origin.marking}
    return render(
        "dataset_cards/votes.md",
        facts=facts,
        provenance=provenance,
        repo_id=repo_id,
        recipe={"name": name},
        results=None,
    )
