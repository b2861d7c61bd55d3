"""`make demo`: the whole product on one machine, from sign-up to a statement, in front of your eyes."""

import argparse
import asyncio
import os
import signal
import sys
from pathlib import Path
from types import FrameType

import aiohttp

from demo import house, story
from demo.customer import Customer, UnableToDo
from demo.provider import UnableToUse
from demo.screen import Screen

ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# The production rules with a quicker clock: looks every two seconds, and on the way to full every answer is audited,
# since a demo has few.
PACE = {
    "BEAT_SECONDS": "2",
    "MIN_PAIRS": "750",
    "RAMP_AUDIT_SHARE": "1.0",
    "DATASET_GROWTH": "9",  # one version: a second student would begin in shadow again
    "SHADOW_SHARE": "1.0",
    # A third of the default's arithmetic: rank, layers and passes. Half as many rows a step take twice as many steps.
    "LORA_RANK": "8",
    "LORA_MODULES": "mlp",
    "LORA_EPOCHS": "1",
    "LORA_BATCH": "8",
    "STUDENT_TIMEOUT_S": "8",
    "LEASE_SECONDS": "20",
}
# Without a GPU a JSON answer of forty tokens takes many seconds: with the usual patience the teacher would give it. And
# extraction takes more rows than labelling.
PACE_FULL = {"STUDENT_TIMEOUT_S": "45", "MIN_PAIRS": "1250", "BEAT_SECONDS": "4"}
FULL = story.Scale(learnt=story.ALL, teaching=1400, burst=400, measured=480)


def main(arguments: list[str]) -> int:
    """Tell the story; returns 0 only if a student really served and the books balance."""
    parser = argparse.ArgumentParser(prog="demo", description=__doc__)
    parser.add_argument("--exit", action="store_true", help="stop at the end instead of staying up")
    parser.add_argument("--full", action="store_true", help="train all four workloads")
    options = parser.parse_args(arguments)
    screen = Screen()
    state = Path(os.environ.get("DEMO_STATE_DIR", house.ROOT / ".state" / "demo"))
    started = house.Started()
    end_once(started)
    try:
        screen.step("Starting PostgreSQL, Valkey, vLLM, encoder, feed, gateway, web, worker, trainer, beat")
        pace = {**PACE, **PACE_FULL} if options.full else PACE
        home = house.start(started, state=state, pace=pace, tell=screen.show)
        account = asyncio.run(tell_story(home, FULL if options.full else story.Scale(), screen))
        if not options.exit:
            screen.note("everything stays up; Ctrl-C stops it")
            home.product.wait()
        return 0 if story.held(account) else 1
    except (story.StoryBroke, UnableToDo, UnableToUse, house.UnableToStart) as error:
        screen.note(f"the demo stopped: {error}")
        screen.note(f"logs: {state / 'logs'}")
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        screen.note("stopping every process")
        started.stop()


def end_once(started: house.Started) -> None:
    """Let the first Ctrl-C (or end of the terminal) end the story; a second must not leave half of it behind."""
    told: list[int] = []

    def hear(number: int, frame: FrameType | None) -> None:
        told.append(number)
        if len(told) == 1:
            started.interrupt()

    for ending in ENDINGS:
        signal.signal(ending, hear)


async def tell_story(home: house.House, scale: story.Scale, screen: Screen) -> story.Account:
    """All of it, in order."""
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as http:
        customer = Customer(http, home.web)
        await story.sign_up(customer, home, screen)
        await story.teach(customer, home, scale, screen)
        workloads = await story.discover(customer, scale, screen)
        taught = await story.learn(customer, workloads, screen)
        await story.roll_out(customer, home, taught, scale, screen)
        account = await story.measure(customer, home, scale, screen)
        await story.settle(customer, account, screen)
        story.tell_end(account, home, screen)
        return account


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
