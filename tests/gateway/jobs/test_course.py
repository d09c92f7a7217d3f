"""How fast a job goes, and how long it may still take."""

from gateway.jobs.course import Course
from gateway.jobs.job import Job, Progress

MIB = 2**20


class Ride:
    """A job on a clock that is told to go on."""

    def __init__(self, done: int = 0) -> None:
        self.now = 100.0
        self.news = 0
        begun = Progress(bytes_done=done)
        job = Job(
            id="j", kind="k", tenant="t", owner="o", status="running", progress=begun, created_at=0.0, updated_at=0.0
        )
        self.course = Course(job, self._told, lambda: self.now)

    def _told(self) -> None:
        self.news += 1

    def go(self, seconds: float, per_s: int, *, begin: int = 0, phase: str = "downloading") -> Progress:
        for tenth in range(round(seconds * 10)):
            self.now += 0.1
            done = begin + (tenth + 1) * per_s // 10
            self.course.report(Progress(phase=phase, bytes_done=done, bytes_total=100 * MIB))
        return self.course.progress()


def test_a_steady_rate_is_told_with_what_is_left() -> None:
    ride = Ride()
    told = ride.go(10, 2 * MIB)
    assert told.bytes_per_s is not None
    assert told.eta_s is not None
    assert abs(told.bytes_per_s - 2 * MIB) < 0.05 * MIB
    assert abs(told.eta_s - 40) < 1
    assert ride.news == 100


def test_nothing_is_told_of_the_rate_before_there_is_one() -> None:
    told = Ride().go(0.3, MIB)
    assert (told.bytes_per_s, told.eta_s) == (None, None)


def test_what_was_there_before_does_not_count_as_fast() -> None:
    told = Ride(done=60 * MIB).go(2, MIB, begin=60 * MIB)
    assert told.bytes_per_s is not None
    assert told.bytes_per_s < 1.1 * MIB


def test_the_rate_follows_a_change_and_falls_while_nothing_comes() -> None:
    ride = Ride()
    ride.go(10, 8 * MIB)
    slower = ride.go(5, MIB, begin=80 * MIB).bytes_per_s
    assert slower is not None
    assert 2 * MIB < slower < 5 * MIB
    ride.now += 10
    stalled = ride.course.progress().bytes_per_s
    assert stalled is not None
    assert stalled < slower / 5


def test_another_phase_and_the_end_have_no_rate() -> None:
    ride = Ride()
    ride.go(5, 20 * MIB)
    assert ride.go(0.3, 0, begin=100 * MIB, phase="verifying").bytes_per_s is None
    ride.go(5, MIB)
    ride.course.over.set()
    assert ride.course.progress().bytes_per_s is None


def test_only_what_no_attempt_had_before_is_further() -> None:
    ride = Ride(done=50)
    ride.course.report(Progress(bytes_done=40))
    assert not ride.course.further()
    ride.course.report(Progress(bytes_done=51))
    assert ride.course.further()
    assert not ride.course.further()
