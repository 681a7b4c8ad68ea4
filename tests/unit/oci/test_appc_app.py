# SPDX-License-Identifier: Apache-2.0
"""How to run an App Container image, said as OCI says it; what is checked of it is in `test_appc_manifest`."""

from worker.oci.appc_app import runtime_config


def test_what_oci_can_say_is_said() -> None:
    """User and group, what to run, its environment and directory."""
    app = {
        "user": "www",
        "group": "33",
        "exec": ["/bin/a", "-b"],
        "environment": [{"name": "A", "value": "1"}, {"name": "B", "value": ""}],
        "workingDirectory": "/srv",
    }

    assert runtime_config(app) == {
        "User": "www:33",
        "Entrypoint": ["/bin/a", "-b"],
        "Env": ["A=1", "B="],
        "WorkingDir": "/srv",
    }
