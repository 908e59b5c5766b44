"""The agent with tight limits refuses the name of a limit that does not exist."""

import pytest

from lab.tight_agent import main


@pytest.mark.parametrize("limit", ["pending_bytes=1", "silence_s=long", "silence_s", "batch_max_bytes=1.5"])
def test_a_limit_that_is_not_one_is_wrong_use(limit: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["run", "--limit", limit])
    assert ended.value.code == 2
    assert limit.partition("=")[0] in capsys.readouterr().err
