"""Answers that nobody would write: any JSON, and JSON that looks nearly like an answer about a task."""

from __future__ import annotations

from hypothesis import strategies as st

from piapi_async import Task

ID = "ba8d80d2-4b1c"

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
WORDS = st.sampled_from(
    ["pending", "processing", "completed", "failed", "canceled", "success", "unheard of", ""]
)
NEAR = st.fixed_dictionaries(
    {},
    optional={
        "code": st.sampled_from([200, 0, 400, 401, 404, 429, 500, 10000, "200"]) | JSON,
        "message": TEXT | JSON,
        "data": JSON
        | st.fixed_dictionaries(
            {},
            optional={
                "task_id": st.just(ID) | JSON,
                "status": WORDS | JSON,
                "output": JSON
                | st.dictionaries(
                    st.sampled_from(["image_url", "image_urls", "progress", "video", "actions"]), JSON
                ),
                "meta": JSON | st.dictionaries(st.sampled_from(["created_at", "ended_at"]), JSON),
                "error": JSON | st.dictionaries(st.sampled_from(["message", "detail"]), JSON),
                "url": JSON,
                "generation": JSON,
                "works": JSON,
                "image": JSON,
            },
        ),
    },
)


def look_at_all_of(value: object) -> None:
    """Read everything a value has; only `PiAPIError` may come of it."""
    if isinstance(value, Task):
        _ = (value.files, value.images, value.task_type, value.created_at, value.ended_at, value.error)
        _ = value.result
