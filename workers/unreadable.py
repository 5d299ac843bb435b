"""Say how a global model cannot be read that updates were trained from: no site is to blame for that."""

from __future__ import annotations

from flavor.disk import AWAY, FULL, LIMITS
from flavor.errors import LocalFault, ObjectMissing, StoreError, StoreUnavailable, TransferStopped, UnreadableModel
from flavor.records.model import GlobalModel
from flavor.store.paths import checked_global
from flavor.store.protocol import ObjectStore
from workers.reading import CHANGED


def unreadable(store: ObjectStore, model: GlobalModel) -> str:
    """Return what has become of a global model that cannot be read, for `the global model PATH …`; '' where it can.

    Also returns '' where the store is away or this machine is at fault: that shows nothing about the model.
    """
    path = model.model.path
    try:
        checked_global(path)
        with store.open(model.model).open("rb"):  # a file whose seal is known is not opened to verify it
            return ""
    except CHANGED as error:
        return "is no longer in the store" if isinstance(error, ObjectMissing) else "was changed in the store"
    except (LocalFault, TransferStopped):
        return ""
    except StoreError as error:
        if isinstance(error, StoreUnavailable) and error.passing:
            return ""
        return f"cannot be read in the store ({str(error).removeprefix(f'object {path}: ')})"
    except OSError as error:
        if error.errno in (*AWAY, *FULL, *LIMITS):
            return ""
        return f"cannot be read in the store ({error.strerror})"


def instead_of(error: Exception, store: ObjectStore, model: GlobalModel | None) -> Exception:
    """Return the error of the global model that an update was trained from, where it may be the cause of `error`."""
    if model is not None and isinstance(error, StoreError | OSError) and (how := unreadable(store, model)):
        return UnreadableModel(
            f"the global model {model.model.path} {how}: its task began from it, and that is no fault of this site"
        )
    return error
