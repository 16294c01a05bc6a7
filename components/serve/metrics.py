"""What the service tells Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
SIZES = (1, 2, 4, 8, 16, 32, 48, 64)


class ServiceMetrics:
    """The counters of one application, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter("wordmill_requests", "Answered requests", ["status"], registry=self.registry)
        self.images = Counter("wordmill_images", "Pictures read", registry=self.registry)
        self.seconds = Histogram(
            "wordmill_request_seconds", "From a request's head to its answer", buckets=SECONDS, registry=self.registry
        )
        self.batches = Histogram(
            "wordmill_batch_images", "Pictures of a batch of the network", buckets=SIZES, registry=self.registry
        )
        self.waiting = Gauge("wordmill_waiting_images", "Pictures that wait for a batch", registry=self.registry)
        self.in_hand = Gauge("wordmill_requests_in_hand", "Whole requests in hand", registry=self.registry)
        self.body_bytes = Gauge("wordmill_body_bytes", "Bytes of bodies in memory", registry=self.registry)

    def answered(self, status: int, seconds: float, images: int) -> None:
        """Count one answer."""
        self.requests.labels(str(status)).inc()
        self.seconds.observe(seconds)
        self.images.inc(images)
