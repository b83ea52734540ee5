"""The exception tree: who descends from whom, what each carries, and that all survive pickling."""

# ruff: noqa: S301 - what is unpickled here was pickled here
from __future__ import annotations

import copy
import inspect
import pickle
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from support.tables import for_each

import piapi_async
from piapi_async import Reroll, TaskRef, errors
from piapi_async._http import HTTPResponse
from piapi_async.errors import (
    APIError,
    AuthenticationError,
    ClientClosed,
    DownloadError,
    InsufficientCreditError,
    InvalidRequestError,
    LedgerError,
    NotFoundError,
    ParentOutdatedError,
    PiAPIError,
    RateLimitError,
    ServerError,
    SubmissionUnknown,
    TaskCancelled,
    TaskFailed,
    TransportError,
    UnexpectedAnswer,
    WaitTimeout,
    WebhookRejected,
)
from piapi_async.midjourney import Fetch
from piapi_async.tasks import TaskId

PARENTS: dict[type[PiAPIError], type[PiAPIError]] = {
    TransportError: PiAPIError,
    APIError: PiAPIError,
    AuthenticationError: APIError,
    InsufficientCreditError: APIError,
    InvalidRequestError: APIError,
    NotFoundError: APIError,
    ParentOutdatedError: APIError,
    RateLimitError: APIError,
    ServerError: APIError,
    UnexpectedAnswer: PiAPIError,
    SubmissionUnknown: PiAPIError,
    TaskFailed: PiAPIError,
    TaskCancelled: PiAPIError,
    WaitTimeout: PiAPIError,
    ClientClosed: PiAPIError,
    LedgerError: PiAPIError,
    WebhookRejected: PiAPIError,
    DownloadError: PiAPIError,
}

REQUEST = Reroll("6886fc4d", prompt="a cute cat")
REF = TaskRef("https://api.piapi.ai", "legacy", TaskId("c0d39b5a"))
OTHER_REF = TaskRef("https://api.piapi.ai", "legacy", TaskId("11112222"))
TASK = Fetch(TaskId("c0d39b5a")).parse(
    HTTPResponse(200, b'{"status": "failed", "task_result": {"error_messages": ["no luck"]}}')
)

EXAMPLES: list[PiAPIError] = [
    PiAPIError("went wrong"),
    TransportError("went wrong", sent=True),
    TransportError("went wrong", sent=False, untrusted=True),
    *(
        cls("went wrong", status=400, message="the host's words", body="{…}", request=REQUEST, ref=REF)
        for cls in (
            APIError,
            AuthenticationError,
            InsufficientCreditError,
            InvalidRequestError,
            NotFoundError,
            ParentOutdatedError,
            ServerError,
        )
    ),
    RateLimitError(
        "went wrong", status=429, message="slow down", body="{…}", request=REQUEST, retry_after=2.5
    ),
    UnexpectedAnswer("went wrong", path="task_result.image_urls[2]", excerpt="{}"),
    SubmissionUnknown("went wrong", request=REQUEST, at=1709035361.5, key="mine", ref=REF),
    TaskFailed("went wrong", task=TASK),
    TaskCancelled("went wrong", task=TASK),
    WaitTimeout("went wrong", refs=[REF, OTHER_REF], task=TASK),
    ClientClosed("went wrong"),
    LedgerError("went wrong", ref=REF),
    WebhookRejected("went wrong"),
    DownloadError("went wrong", url="https://img.theapi.app/a.png", path=Path("pictures"), status=404),
]

PROTOCOLS = (0, pickle.DEFAULT_PROTOCOL, pickle.HIGHEST_PROTOCOL)

COPIERS: list[Callable[[PiAPIError], PiAPIError]] = [
    copy.copy,
    copy.deepcopy,
    *(lambda error, protocol=protocol: pickle.loads(pickle.dumps(error, protocol)) for protocol in PROTOCOLS),
]

each_example = for_each("error", EXAMPLES, ids=lambda error: type(error).__name__)
each_copier = for_each("copied", COPIERS, ids=["copy", "deepcopy", *(f"pickle {n}" for n in PROTOCOLS)])


def public_errors() -> set[type[PiAPIError]]:
    return {
        value
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, PiAPIError) and not name.startswith("_")
    }


def nearest_public_parent(cls: type[PiAPIError]) -> type:
    return next(parent for parent in cls.__mro__[1:] if not parent.__name__.startswith("_"))


def drawn_tree() -> dict[str, str]:
    """Give child → parent as the module's docstring draws them: four columns are one level."""
    parents, line_of_descent = {}, ["PiAPIError"]
    for bar, name in re.findall(r"^ {4}([│ ]*)[├└]── (\w+)", errors.__doc__ or "", re.MULTILINE):
        depth = len(bar) // 4 + 1
        parents[name] = line_of_descent[depth - 1]
        line_of_descent[depth:] = [name]
    return parents


class TestTheTree:
    def test_every_class_has_the_documented_parent(self) -> None:
        assert {cls: nearest_public_parent(cls) for cls in PARENTS} == PARENTS

    def test_there_are_no_other_classes(self) -> None:
        assert {PiAPIError, *PARENTS} == public_errors()

    def test_the_drawing_in_the_docstring_tells_the_truth(self) -> None:
        expected = {child.__name__: parent.__name__ for child, parent in PARENTS.items()}

        assert expected == drawn_tree()

    def test_all_are_exceptions_and_no_base_exceptions_of_another_kind(self) -> None:
        assert (Exception, BaseException, object) == PiAPIError.__mro__[1:]

    def test_wait_timeout_is_caught_as_a_timeout_error_too(self) -> None:
        with pytest.raises(TimeoutError):
            raise WaitTimeout("we stopped waiting", ref=REF)

    def test_nothing_but_wait_timeout_is_a_timeout_error(self) -> None:
        timeouts = {cls.__name__ for cls in public_errors() if issubclass(cls, TimeoutError)}

        assert timeouts == {"WaitTimeout"}

    def test_every_class_is_exported_by_the_package(self) -> None:
        expected = {cls.__name__ for cls in public_errors()}

        assert expected <= set(piapi_async.__all__)

    def test_there_is_an_example_of_every_class_here(self) -> None:
        assert {type(error) for error in EXAMPLES} == public_errors()


class TestEveryClass:
    @each_example
    def test_shows_its_message(self, error: PiAPIError) -> None:
        assert str(error) == "went wrong"
        assert error.args == ("went wrong",)

    @each_example
    def test_takes_the_message_alone_by_position(self, error: PiAPIError) -> None:
        _, message, *others = inspect.signature(type(error).__init__).parameters.values()

        assert message.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
        assert {parameter.kind for parameter in others} <= {inspect.Parameter.KEYWORD_ONLY}

    @each_example
    def test_has_an_attribute_for_every_keyword_it_takes(self, error: PiAPIError) -> None:
        _, _, *keywords = inspect.signature(type(error).__init__).parameters

        assert set(keywords) <= set(vars(error))

    @each_example
    @each_copier
    def test_is_the_same_when_copied(
        self, error: PiAPIError, copied: Callable[[PiAPIError], PiAPIError]
    ) -> None:
        mine = copy.deepcopy(error)
        mine.add_note("in batch 7")  # what was added later is kept, too
        twin = copied(mine)

        assert type(twin) is type(error)
        assert vars(twin) == {**vars(error), "__notes__": ["in batch 7"]}
        if not isinstance(error, WaitTimeout):  # whose message is made of its attributes
            assert twin.args == error.args

    @each_example
    def test_may_be_raised_and_caught_by_the_base(self, error: PiAPIError) -> None:
        with pytest.raises(PiAPIError) as caught:
            raise error

        assert caught.value is error


class Picky(TransportError):
    """A user's subclass, whose constructor is nothing like ours."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(f"no answer from {host}:{port}", sent=False)
        self.host = host


class TestCopying:
    @each_copier
    def test_does_not_run_the_constructor_again(self, copied: Callable[[PiAPIError], PiAPIError]) -> None:
        twin = copied(Picky("api.piapi.ai", 443))

        assert isinstance(twin, Picky)
        assert str(twin) == "no answer from api.piapi.ai:443"
        assert vars(twin) == {"sent": False, "untrusted": False, "host": "api.piapi.ai"}

    @each_copier
    def test_keeps_a_message_that_was_changed_after_construction(
        self, copied: Callable[[PiAPIError], PiAPIError]
    ) -> None:
        error = RateLimitError("slow down", status=429)
        error.args = ("Reroll('6886fc4d'): slow down",)

        assert str(copied(error)) == "Reroll('6886fc4d'): slow down"


class TestDefaults:
    def test_a_refusal_without_details_has_empty_ones(self) -> None:
        error = APIError("no", status=418)

        assert (error.message, error.body, error.request) == ("", "", None)

    def test_a_rate_limit_may_name_no_time(self) -> None:
        assert RateLimitError("no", status=429).retry_after is None

    def test_an_unexpected_answer_is_about_the_whole_unless_it_says_otherwise(self) -> None:
        error = UnexpectedAnswer("what?")

        assert (error.path, error.excerpt) == ("", "")

    def test_an_unknown_submission_has_no_key_without_a_ledger(self) -> None:
        assert SubmissionUnknown("who knows", request=REQUEST, at=1.0).key is None

    def test_a_transport_error_must_say_whether_the_request_left(self) -> None:
        with pytest.raises(TypeError, match="sent"):
            TransportError("lost")  # type: ignore[call-arg] # what is missing is the point


class TestWaitTimeout:
    def test_of_one_task_lists_it_among_its_refs(self) -> None:
        error = WaitTimeout("late", ref=REF)

        assert (error.ref, error.refs) == (REF, (REF,))

    def test_of_several_tasks_has_no_single_ref(self) -> None:
        error = WaitTimeout("late", refs=[REF, OTHER_REF])

        assert (error.ref, error.refs) == (None, (REF, OTHER_REF))

    def test_of_nothing_has_no_refs(self) -> None:
        assert WaitTimeout("late").refs == ()

    @each_copier
    def test_keeps_its_message_when_copied(self, copied: Callable[[PiAPIError], PiAPIError]) -> None:
        assert str(copied(WaitTimeout("late", ref=REF))) == "late"
