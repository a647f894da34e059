"""The fixture that the tests of pages use."""


def test_a_page_is_laid_out_and_its_script_runs(browser):
    page = browser.new_page()
    page.set_content(
        "<h1>one</h1><script>document.querySelector('h1').textContent += ' two'</script>"
    )
    assert page.inner_text("h1") == "one two"
    assert page.locator("h1").bounding_box()["height"] > 10
    page.close()
