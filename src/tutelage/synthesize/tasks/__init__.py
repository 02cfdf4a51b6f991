"""Labelled task tables become instructions (FLAN): templates, few-shot and chain-of-thought forms, held-out clusters.

Source: Wei et al. 2022, "Finetuned Language Models Are Zero-Shot Learners", section 2; Chung et al. 2022.
"""

from tutelage.synthesize.tasks.making import Made, present_tasks, samples, synthesize_tasks
from tutelage.synthesize.tasks.task import Task, read_task, read_tasks

__all__ = ["Made", "Task", "present_tasks", "read_task", "read_tasks", "samples", "synthesize_tasks"]
