"""What step classes raise, and what their failed results hold.

AgentFlowError
├── WorkflowDefinitionError       a class, a step or its signature that cannot be used; always raised
├── StateValidationError          `run` was given no state; always raised
├── WorkflowExecutionError        the run failed, and its caller asked to be told by an exception
├── StepExecutionError            stands for an error of which there is only a record; nothing raises it
├── RouteResolutionError          a step with routes returned something that is none of their keys
├── ApprovalRequiredError         an approval that is missing, denied, or no decision at all
├── ApprovalResumeError           a result that cannot be resumed
├── HookExecutionError            a hook failed; `__cause__` is what it raised
└── ChildWorkflowExecutionError   a child workflow failed; `__cause__` is its error
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .models import WorkflowResult


class AgentFlowError(Exception):
    """The base of all errors of step classes."""


class WorkflowDefinitionError(AgentFlowError):
    """A workflow class, a step or its signature cannot be used."""


class StepExecutionError(AgentFlowError):
    """Stands for an error in a result that was made of a record. Nothing raises it: a step's own exception is kept."""

    #: What the record says of the error: its `type` and `message`.
    recorded: dict[str, str] | None = None


class WorkflowExecutionError(AgentFlowError):
    """A run failed, and `raise_on_failure=True` was asked for. `__cause__` is the error."""

    #: What `run` would have returned.
    result: WorkflowResult | None = None


class StateValidationError(AgentFlowError):
    """A run was given None for its state."""


class RouteResolutionError(AgentFlowError):
    """A step with routes returned something that is none of their keys."""


class ApprovalRequiredError(AgentFlowError):
    """A step was not approved: denied, nobody to ask, or an answer that is no decision."""


class ApprovalResumeError(AgentFlowError):
    """A result that cannot be resumed, or not by this class, or not any more."""


class HookExecutionError(AgentFlowError):
    """A hook raised an exception, which is the `__cause__`."""

    #: The result as it was before the hook failed: a paused one can still be resumed from here.
    result: WorkflowResult | None = None


class ChildWorkflowExecutionError(AgentFlowError):
    """A child workflow failed inside of a step; its error is the `__cause__`."""
