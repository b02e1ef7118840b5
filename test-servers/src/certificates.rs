use std::fs;
use std::io;
use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

/// Certificates made for one server, in files of PEM that are gone with this value.
#[derive(Debug)]
pub struct Certificates {
    folder: tempfile::TempDir,
}

impl Certificates {
    /// An authority, a certificate for 127.0.0.1 that it signed, and another authority that signed nothing.
    pub(crate) fn make() -> io::Result<Self> {
        let folder = tempfile::Builder::new().prefix("leasehold-certificates-").tempdir()?;
        let made = Self { folder };
        let ours = authority("ours")?;
        fs::write(made.authority(), ours.pem())?;
        fs::write(made.stranger(), authority("a stranger's")?.pem())?;
        let key = KeyPair::generate().map_err(io::Error::other)?;
        let server = CertificateParams::new(["127.0.0.1".to_owned(), "localhost".to_owned()])
            .and_then(|params| params.signed_by(&key, &ours))
            .map_err(io::Error::other)?;
        fs::write(made.server(), format!("{}{}", server.pem(), key.serialize_pem()))?;
        Ok(made)
    }

    /// The authority that a client has to trust.
    pub fn authority(&self) -> PathBuf {
        self.folder.path().join("authority.pem")
    }

    /// An authority that has not signed the server's certificate.
    pub fn stranger(&self) -> PathBuf {
        self.folder.path().join("stranger.pem")
    }

    /// The server's certificate and its key.
    pub(crate) fn server(&self) -> PathBuf {
        self.folder.path().join("server.pem")
    }
}

fn authority(name: &str) -> io::Result<CertifiedIssuer<'static, KeyPair>> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    let key = KeyPair::generate().map_err(io::Error::other)?;
    CertifiedIssuer::self_signed(params, key).map_err(io::Error::other)
}
