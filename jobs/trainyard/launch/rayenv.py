"""What Ray is told by environment variables. Ray reads some of them while it is imported, so they come first."""

import os

POLL_SECONDS = 0.25
"""How often Ray Train looks at its workers."""
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DISABLE_FAILURE_SIGNAL_HANDLER": "1",  # Ray's handler would print a crash dump instead of saving
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # Ray would rebuild the environment for each worker under `uv run`
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths of the manifest count from where the user stands
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": str(POLL_SECONDS),
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_ENABLE_AUTO_CONNECT": "0",  # a call after Ray's end would begin it anew
    "RAY_TRAIN_ENABLE_CONTROLLER_STRUCTURED_LOGGING": "0",
    "RAY_TRAIN_ENABLE_WORKER_STRUCTURED_LOGGING": "0",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_enable_worker_prestart": "1",  # every node has the process of its worker before it is asked for one
    "RAY_DASHBOARD_STARTUP_TIMEOUT_S": "0",  # the raylet need not wait for the dashboard and its ten processes
    # Ray's daemons wake up for what nobody here reads; on full cores every wake-up delays a training step.
    "RAY_metrics_report_interval_ms": "60000",
    "RAY_event_stats": "0",
    "RAY_task_events_report_interval_ms": "0",
    "RAY_memory_monitor_refresh_ms": "0",
    "RAY_raylet_report_resources_period_ms": "1000",
    # On busy cores Ray's processes need minutes to start. One that has died is noticed at once all the same.
    "RAY_worker_niceness": "5",  # fifteen by itself: beside strangers a worker would not come up in minutes
    "RAY_gcs_server_port_wait_time_s": "120",
    "RAY_gcs_server_request_timeout_seconds": "600",
    "RAY_agent_register_timeout_ms": "600000",
    "RAY_worker_register_timeout_seconds": "600",
}
_MANY_NODES = {
    # A node that refuses connections is noticed after two seconds, a silent one after four; not after fifteen.
    "RAY_health_check_initial_delay_ms": "2000",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "180",
}
_ONE_NODE = {
    # It cannot be lost without the launcher, which watches Ray's processes itself: silence only means busy cores.
    "RAY_health_check_initial_delay_ms": "600000",
    "RAY_health_check_timeout_ms": "60000",
    "RAY_health_check_failure_threshold": "10",
    # Five and ten seconds by themselves, after which a raylet and a worker end.
    "RAY_gcs_rpc_server_connect_timeout_s": "120",
    "RAY_raylet_client_num_connect_attempts": "120",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "600",
}


def prepare(one_node: bool = False) -> None:
    """Set the variables for this process and those that it starts; what the user has set stays."""
    for name, value in {**_ENVIRONMENT, **(_ONE_NODE if one_node else _MANY_NODES)}.items():
        os.environ.setdefault(name, value)
