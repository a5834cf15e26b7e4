"""Pure data and pure decisions: no module here touches the machine."""
