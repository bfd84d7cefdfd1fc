"""What scripts and the form call; needs no Qt."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from MMRegCore.config import DEFAULT_PRESET
from MMRegCore.errors import MMRegError
from MMRegSlicerLib.registration import Callbacks, Progress, Registration, ignore
from MMRegSlicerLib.request import Mask, Moving, Node, Request
from MMRegSlicerLib.result import Result


class MMRegSlicerLogic:
    """Registers nodes of the scene; what scripts call.

    Examples
    --------
    ``result = MMRegSlicerLogic().register(ultrasound, [t1, flair], preset="mcbo")`` waits;
    ``.start(…, done=print)`` does not.
    """

    def __init__(self) -> None:
        self._running: list[Registration] = []

    def register(self, fixedNode: Node, movingNodes: Node | Sequence[Node], **options: Any) -> Result:  # noqa: ANN401, N803
        """Register and wait.

        Parameters
        ----------
        fixedNode : vtkMRMLScalarVolumeNode
            The ultrasound.
        movingNodes : vtkMRMLScalarVolumeNode or sequence of them
            The MR.
        **options
            As `makeRequest` takes them.

        Returns
        -------
        Result
            The transform, the warped volumes and the quality numbers; the MR lie under the transform.

        Raises
        ------
        MMRegError
            In one line what is wrong: with the input, the device, a package, the computation.
        """
        return self.startRequest(self.makeRequest(fixedNode, movingNodes, **options)).wait()

    def start(
        self,
        fixedNode: Node,  # noqa: N803
        movingNodes: Node | Sequence[Node],  # noqa: N803
        *,
        progress: Callable[[Progress], None] = ignore,
        log: Callable[[str], None] = ignore,
        done: Callable[[Result], None] = ignore,
        failed: Callable[[MMRegError], None] = ignore,
        **options: Any,  # noqa: ANN401
    ) -> Registration:
        """Register in the background.

        Callbacks come from `poll`, which a timer of the application calls (the form has one); a script calls
        ``poll()`` or ``wait()`` of what this returns.

        Raises
        ------
        InputError, DependencyError
            When it cannot begin.
        """
        request = self.makeRequest(fixedNode, movingNodes, **options)
        return self.startRequest(request, Callbacks(progress, log, done, failed))

    def makeRequest(  # noqa: N802
        self,
        fixedNode: Node,  # noqa: N803
        movingNodes: Node | Sequence[Node],  # noqa: N803
        *,
        preset: str = DEFAULT_PRESET,
        fixedMask: Node | Mask | None = None,  # noqa: N803
        movingMasks: Sequence[Node | Mask | None] = (),  # noqa: N803
        start: Node | None = None,
        changes: Mapping[str, str] | None = None,
        device: str = "auto",
        name: str = "",
    ) -> Request:
        """Put together what to do; see `Request`. A mask is a label map node, or a `Mask` with a segment."""
        nodes = [movingNodes] if hasattr(movingNodes, "GetID") else list(movingNodes)
        masks = [*movingMasks, *[None] * (len(nodes) - len(movingMasks))]
        moving = tuple(Moving(node, _as_mask(mask)) for node, mask in zip(nodes, masks, strict=True))
        return Request(fixedNode, moving, _as_mask(fixedMask), start, preset, dict(changes or {}), device, name)

    def startRequest(self, request: Request, callbacks: Callbacks | None = None) -> Registration:  # noqa: N802
        """Begin what a request says; raises as `start`."""
        registration = Registration(request, callbacks or Callbacks())
        self._running.append(registration)
        return registration

    def poll(self) -> bool:
        """Let every running registration tell what happened; give whether one is still running."""
        self._running = [each for each in self._running if each.poll()]
        return bool(self._running)

    def cancelAll(self, reason: str = "") -> None:  # noqa: N802
        """Stop everything that runs, at once."""
        for registration in self._running:
            registration.cancel(reason)
        self._running = []


def _as_mask(mask: Node | Mask | None) -> Mask | None:
    return mask if mask is None or isinstance(mask, Mask) else Mask(mask)
