"""AITP's data plane: one module or package per stage of the pipeline.

Nothing here knows of Airflow. Every stage is a process started by
``aitp STAGE --run URI [--unit N]`` (see ``aitp_tasks.cli``); what it reads and
writes lies in object storage (see ``aitp_tasks.storage``).
"""
