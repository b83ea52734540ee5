"""The identity of batch items: one `SubmissionKey` per item, made once, which travels with it to the ledger.

A key that is minted is a stored format: what the request asks for, and its occurrence number within
the run.  The same input therefore has the same keys in every run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .._protocol.family import TaskRequest
from .._runtime import Runtime
from ..ledger._entries import SubmissionKey
from ._outcome import BatchItem

if TYPE_CHECKING:
    from ..ledger._writer import LedgerWriter


async def identify(
    runtime: Runtime,
    items: Sequence[BatchItem[Any]],
    run_id: str,
) -> list[SubmissionKey | None]:
    """Return the identity of each item, None for each if the client has no ledger.

    Keys are minted for items that have none.
    """
    if runtime.ledger is None:
        return [None] * len(items)

    identities = [_of(runtime, item.request, item.key) for item in items]
    nameless = [index for index, item in enumerate(items) if not item.key]
    if nameless:
        runtime.enter()  # a client that was closed opens no ledger any more
        minted = await _mint_keys(runtime.ledger, [identities[index] for index in nameless], run_id)
        for index, identity in zip(nameless, minted, strict=True):
            identities[index] = identity
    return [*identities]


def _of(runtime: Runtime, request: TaskRequest[Any], key: str | None) -> SubmissionKey:
    return SubmissionKey.of(
        request.to_http(),
        key=key or "",
        origin=runtime.origin,
        family=request.family.name,
    )


async def _mint_keys(
    ledger: LedgerWriter,
    identities: Sequence[SubmissionKey],
    run_id: str,
) -> list[SubmissionKey]:
    numbers = await ledger.occurrence_numbers(run_id, identities)
    return [
        identity.with_key(f"{identity.digest.hex()[:32]}-{number}")
        for identity, number in zip(identities, numbers, strict=True)
    ]
