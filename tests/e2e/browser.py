"""Airflow's pages in a real browser: Debian's Chromium, driven by Playwright."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from playwright.sync_api import Locator, Page, ViewportSize, expect, sync_playwright

from demo.services import DAG, USER, Services

#: Where pictures for docs/ are left; none are made where it is not set.
PICTURES_VARIABLE = "AITP_PICTURES"
#: Patient: on two busy processors a page can take a while.
SECONDS = 60


def size(width: int, height: int) -> ViewportSize:
    """Of a window, in pixels."""
    return {"width": width, "height": height}


@contextmanager
def opened(services: Services) -> Iterator["Ui"]:
    """A browser that has logged in."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert program, "no Chromium on PATH: `apt-get install chromium` (.ci/run does)"
    arguments = ["--disable-background-networking", *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    expect.set_options(timeout=SECONDS * 1000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=arguments)
        page = browser.new_page(viewport=size(1280, 900))
        page.set_default_timeout(SECONDS * 1000)
        ui = Ui(page, services)
        ui.log_in()
        yield ui
        browser.close()


class Ui:
    """What a person does on the DAG's pages."""

    def __init__(self, page: Page, services: Services) -> None:
        self.page = page
        self._services = services

    def log_in(self) -> None:
        """Log in, and see the DAG."""
        self.show()
        self.page.fill("input[name=username]", USER)
        self.page.fill("input[name=password]", self._services.credentials.password)
        self.page.keyboard.press("Enter")
        self.page.get_by_test_id("trigger-dag-button").wait_for()

    def show(self, *path: str) -> None:
        """Go to the DAG's page, or to one below it."""
        self.page.goto("/".join([self._services.ui, "dags", DAG, *map(quote, path)]))

    def form(self) -> "Form":
        """The trigger form, newly opened."""
        self.show()
        self.page.get_by_test_id("trigger-dag-button").click()
        form = Form(self.dialog)
        expect(form.dialog.get_by_text("Single Run", exact=True)).to_be_visible()
        expect(form.field("dump")).to_be_visible()
        return form

    @property
    def dialog(self) -> Locator:
        """The dialog that is open."""
        return self.page.locator("[role=dialog][data-scope=dialog]")

    def picture(self, name: str, of: Locator | None = None) -> None:
        """Keep what is to be seen for docs/pictures/, where somebody asks for pictures."""
        if folder := os.environ.get(PICTURES_VARIABLE):
            # What moves or blinks has come to rest.
            self.page.wait_for_timeout(1000)
            (of or self.page).screenshot(path=Path(folder) / name, animations="disabled", caret="hide")


class Form:
    """The dialog that triggers a run or a backfill."""

    def __init__(self, dialog: Locator) -> None:
        self.dialog = dialog

    def open(self, section: str) -> None:
        """Open a section; the one that was open closes."""
        self.dialog.get_by_role("button", name=section, exact=True).click()

    def field(self, param: str) -> Locator:
        """The input of a param that is a text."""
        return self.dialog.locator(f"#element_{param}")

    def number(self, param: str) -> Locator:
        """The input of a param that is a number."""
        root = self.dialog.locator("[data-scope=number-input][data-part=root]")
        return root.filter(has=self.dialog.page.locator(f'[id="number-input:element_{param}:inc"]')).locator(
            "input"
        )

    def chosen(self, param: str) -> Locator:
        """Holds the value of a param that is a choice."""
        return self.dialog.locator(f"input[name=element_{param}]")

    def choose(self, param: str, choice: str) -> list[str]:
        """Choose; all choices."""
        self.chosen(param).locator("xpath=..").get_by_role("combobox").click()
        options = self.dialog.page.get_by_role("option")
        expect(options.first).to_be_visible()
        offered = options.all_inner_texts()
        options.filter(has_text=choice).first.click()
        return offered

    def fill_next_day(self, day: str) -> None:
        """Fill the next date that is empty with a day's midnight."""
        page = self.dialog.page
        empty = self.dialog.get_by_text("Select date and time")
        left = empty.count() - 1
        empty.first.click()
        page.get_by_placeholder("YYYY/MM/DD").fill(day.replace("-", "/"))
        page.get_by_placeholder("HH:mm").fill("00:00")
        expect(empty).to_have_count(left)
        self.dialog.get_by_text("Date Range").click()
        expect(page.get_by_placeholder("YYYY/MM/DD")).to_have_count(0)

    def send(self, button: str = "Trigger") -> None:
        """Press the button at the end."""
        self.dialog.get_by_role("button", name=button, exact=True).click()
