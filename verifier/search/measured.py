"""Choices that a search makes from what it measures while it runs."""

from __future__ import annotations

FIRST_BATCH = 64
GROWTH = 1.1  # a larger batch must be bounded at this many times the rate to be kept
EXPLORED = 0.1  # of the time goes to the alternative that was worse
MEMORY = 0.8  # of earlier batches in the rates


class BatchSize:
    """Doubles while larger batches are bounded at a higher rate, up to `most`."""

    def __init__(self, most: int) -> None:
        self.most, self.size, self.rate, self.settled = most, min(FIRST_BATCH, most), 0.0, False

    def note(self, count: int, seconds: float) -> None:
        if self.settled or count < self.size:
            return
        rate = count / max(seconds, 1e-9)
        if rate < GROWTH * self.rate:
            self.settled, self.size = True, max(1, self.size // 2)
        elif self.size == self.most:
            self.settled = True
        else:
            self.rate, self.size = rate, min(2 * self.size, self.most)


class Alternative:
    """Yes or no, whichever gains more in a second; the other is tried again now and then."""

    def __init__(self) -> None:
        self.gains, self.seconds, self.spent = [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]

    def choose(self) -> bool:
        if 0.0 in self.seconds:
            return self.seconds[1] == 0.0
        best = self.rate(True) > self.rate(False)
        return best != (self.spent[not best] < EXPLORED * sum(self.spent))

    def rate(self, choice: bool) -> float:
        return self.gains[choice] / self.seconds[choice]

    def note(self, choice: bool, gain: float, seconds: float) -> None:
        self.gains[choice] = MEMORY * self.gains[choice] + gain
        self.spent[choice] += seconds
        self.seconds[choice] = MEMORY * self.seconds[choice] + max(seconds, 1e-9)
