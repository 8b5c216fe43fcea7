"""What Prometheus may know of the engine and of the process."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from mmaudio.web.jobs import Engine, State


class EngineCollector(Collector):
    def __init__(self, engine: Engine):
        self.engine = engine

    def collect(self) -> Iterator[Metric]:
        engine = self.engine
        ended = CounterMetricFamily("mmaudio_jobs", "Jobs by how they ended.", labels=["state"])
        for state in (State.DONE, State.FAILED, State.CANCELLED):
            ended.add_metric([state], engine.counts[state])
        yield ended
        yield CounterMetricFamily("mmaudio_jobs_refused", "Jobs refused for a full queue.", engine.counts["refused"])
        yield CounterMetricFamily("mmaudio_batches", "Batches that were made.", engine.batches)
        yield CounterMetricFamily("mmaudio_batched_jobs", "Jobs in these batches.", engine.batched)
        yield GaugeMetricFamily("mmaudio_queue_jobs", "Jobs that wait.", len(engine.queued))
        yield GaugeMetricFamily("mmaudio_queue_limit_jobs", "Jobs that may wait.", engine.max_queue)
        yield GaugeMetricFamily("mmaudio_running_jobs", "Jobs that are being made.", len(engine.running))


def registry_of(engine: Engine) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(EngineCollector(engine))
    ProcessCollector(registry=registry)
    return registry
