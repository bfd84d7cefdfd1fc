"""The logic of the module, for scripts and for the panel; needs no Qt."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from MMRegCore.config import DEFAULT_PRESET
from MMRegCore.errors import MMRegError
from MMRegSlicerLib.registration_run import Callbacks, Progress, RegistrationRun, ignore
from MMRegSlicerLib.request import LANDMARK_ERROR_MM, Mask, Moving, Node, Request
from MMRegSlicerLib.result import Result
from MMRegSlicerLib.warm import WarmWorker


class MMRegSlicerLogic:
    """Registers nodes of the scene.

    Examples
    --------
    ``result = MMRegSlicerLogic().register(ultrasound, [t1, flair], preset="mcbo")`` waits;
    ``.start(…, on_finished=print)`` does not.
    """

    def __init__(self) -> None:
        self._runs: list[RegistrationRun] = []
        self._warm = WarmWorker()

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
            The transform, the warped volumes and the quality metrics; the transform is applied to the MR.

        Raises
        ------
        MMRegError
            When the input is not valid, a package or the device is missing, or the computation fails.
        """
        return self.startRequest(self.makeRequest(fixedNode, movingNodes, **options)).wait()

    def start(
        self,
        fixedNode: Node,  # noqa: N803
        movingNodes: Node | Sequence[Node],  # noqa: N803
        *,
        on_progress: Callable[[Progress], None] = ignore,
        on_log: Callable[[str], None] = ignore,
        on_transform: Callable[[Result], None] = ignore,
        on_finished: Callable[[Result], None] = ignore,
        on_failed: Callable[[MMRegError], None] = ignore,
        **options: Any,  # noqa: ANN401
    ) -> RegistrationRun:
        """Register in the background.

        `poll` calls the callbacks. The panel has a timer for that; a script calls ``poll()`` or ``wait()`` of the
        returned run.

        Raises
        ------
        InputError, DependencyError
            When it cannot be started.
        """
        request = self.makeRequest(fixedNode, movingNodes, **options)
        return self.startRequest(request, Callbacks(on_progress, on_log, on_transform, on_finished, on_failed))

    def makeRequest(  # noqa: N802
        self,
        fixedNode: Node,  # noqa: N803
        movingNodes: Node | Sequence[Node],  # noqa: N803
        *,
        preset: str = DEFAULT_PRESET,
        fixedMask: Node | Mask | None = None,  # noqa: N803
        movingMasks: Sequence[Node | Mask | None] = (),  # noqa: N803
        initialTransform: Node | None = None,  # noqa: N803
        changes: Mapping[str, str] | None = None,
        device: str = "auto",
        name: str = "",
        landmarks: tuple[Node, Node] | None = None,
        landmarkErrorMm: float | str = LANDMARK_ERROR_MM,  # noqa: N803
    ) -> Request:
        """Create a `Request`.

        A mask is a label map node, or a `Mask` with a segment. ``landmarks`` are point lists of the ultrasound and of
        the MR, which guide the registration.
        """
        nodes = [movingNodes] if hasattr(movingNodes, "GetID") else list(movingNodes)
        masks = [*movingMasks, *[None] * (len(nodes) - len(movingMasks))]
        moving = tuple(Moving(node, _as_mask(mask)) for node, mask in zip(nodes, masks, strict=True))
        fixed_landmarks, moving_landmarks = landmarks or (None, None)
        return Request(
            fixedNode,
            moving,
            _as_mask(fixedMask),
            initialTransform,
            preset,
            dict(changes or {}),
            device,
            name,
            fixed_landmarks,
            moving_landmarks,
            str(landmarkErrorMm),
        )

    def startRequest(self, request: Request, callbacks: Callbacks | None = None) -> RegistrationRun:  # noqa: N802
        """Start a request in the background; raises as `start`."""
        run = RegistrationRun(request, callbacks or Callbacks(), self._warm)
        self._runs.append(run)
        return run

    def poll(self) -> bool:
        """Poll all runs; return whether one is still running."""
        self._runs = [run for run in self._runs if run.poll()]
        return bool(self._runs)

    def cancelAll(self, reason: str = "") -> None:  # noqa: N802
        """Stop all runs at once."""
        for run in self._runs:
            run.cancel(reason)
        self._runs = []

    def warmUp(self) -> None:  # noqa: N802
        """Start the process for the next registration in the background, so that its imports are not waited for."""
        self._warm.prepare()

    def close(self) -> None:
        """Stop all runs and the idle process."""
        self.cancelAll()
        self._warm.stop()


def _as_mask(mask: Node | Mask | None) -> Mask | None:
    return mask if mask is None or isinstance(mask, Mask) else Mask(mask)
