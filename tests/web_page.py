"""What the tests of the web page share: a browser with the page open, and what can be read off it."""

from collections.abc import Callable, Sequence
from typing import Any

from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select, WebDriverWait

from experiments.browser import asked_hosts


def open_page(driver: Any, address: str, language: str = "") -> None:
    """Opens the page, in a language or in the one that it remembers, and waits until it can answer."""
    asked_hosts(driver)
    driver.get(f"{address}?lang={language}" if language else address)
    wait(driver, lambda d: status(d) in ("Ready.", "Prêt.", "준비되었습니다."))


def wait(driver: Any, condition: Callable[[Any], Any]) -> Any:
    return WebDriverWait(driver, 60).until(condition)


def text(driver: Any, selector: str) -> str:
    return driver.find_element(By.CSS_SELECTOR, selector).text


def texts(driver: Any, selector: str) -> list[str]:
    return [element.text for element in driver.find_elements(By.CSS_SELECTOR, selector)]


def status(driver: Any) -> str:
    return driver.find_element(By.ID, "status").get_property("textContent")  # also where it is only spoken


def answered(driver: Any) -> bool:
    return bool(driver.find_elements(By.CSS_SELECTOR, ".card")) and "…" not in status(driver)


def choose(driver: Any, language: str) -> None:
    Select(driver.find_element(By.ID, "language")).select_by_value(language)


def ask(driver: Any, *paths: str, answers: Callable[[Any], Any] = answered) -> None:
    """Chooses files and waits for their answers."""
    driver.find_element(By.ID, "file").send_keys("\n".join(paths))
    wait(driver, answers)


def capital(words: str) -> str:
    """The words as a headline begins."""
    return words[:1].upper() + words[1:]


def color(driver: Any, selector: str) -> Sequence[str]:
    """Background and foreground as the browser computes them."""
    element = driver.find_element(By.CSS_SELECTOR, selector)
    return [element.value_of_css_property(name) for name in ("background-color", "color")]
