//! Why a partition table could not be used, of whatever kind it is.

/// Why a table could not be used.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// There is no GPT, or neither of its copies is whole.
    #[error("there is no whole GUID partition table: {0}")]
    NoGpt(&'static str),
    /// There is no MBR.
    #[error("there is no MBR: {0}")]
    NoMbr(&'static str),
    /// The disk has neither.
    #[error("{mbr}; {gpt}")]
    Neither {
        /// Why there is no MBR.
        mbr: Box<TableError>,
        /// Why there is no GPT.
        gpt: Box<TableError>,
    },
    /// The device itself failed.
    #[error("disk: {0}")]
    Io(#[from] std::io::Error),
    /// A number in the table makes no sense.
    #[error("partition table: {0}")]
    Insane(&'static str),
}
