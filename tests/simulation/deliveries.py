"""Webhooks on their way to the processes: lost, doubled, late, or brought to the wrong one."""

from __future__ import annotations

from functools import partial
from random import Random
from urllib.parse import urlsplit

from attrs import define

from piapi_async import ClientClosed, WebhookReceiver

from .processes import Process, Processes
from .record import Part
from .tasks import SECRET, HostTask


@define(eq=False)
class Deliveries(Part):
    """Brings the ends of tasks to the processes of a life."""

    processes: Processes
    rng: Random

    def deliver(self, task: HostTask) -> None:
        """Bring the end of a task to the processes: perhaps never, twice, late, or to the wrong one."""
        fate = self.rng.random()
        if fate < 0.2:
            self.host.happened["webhook: lost"] += 1
            return
        times = 2 if fate < 0.35 else 1
        self.host.happened["webhook: twice"] += times == 2
        for _ in range(times):
            late = self.rng.choice((0.0, 0.0, 0.5, 30.0))
            self.host.happened["webhook: late"] += late > 0
            self.world.after(late, partial(self._deliver_now, task))

    def _deliver_now(self, task: HostTask) -> None:
        process = self.rng.choice(self.processes.running)
        users = [one for one in self.record.attempts if self.record.story.subject(one.intent) == task.intent]
        if all((one.process, one.life) != (process.number, process.life) for one in users):
            self.host.happened["webhook: to the wrong process"] += 1
        if process.receiver is not None and process.loop in self.world.loops:
            self.processes.spawn(process, self._handle(process, process.receiver, task))

    async def _handle(self, process: Process, receiver: WebhookReceiver, task: HostTask) -> None:
        headers = {"x-webhook-secret": SECRET, "content-type": "application/json"}
        try:
            await receiver.handle(headers, self.host.delivery(task), query=urlsplit(task.endpoint).query)
        except ClientClosed:
            return
        except Exception as error:  # noqa: BLE001 - that is what is looked for
            self.record.wrong.append(f"a delivery raised {error!r}")
        else:
            self.record.delivered[task.task_id].add((process.number, process.life))
            self.host.happened["webhook: taken"] += 1
