use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

use crate::process::User;

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

impl Certificates {
    /// Gives them to whom the server runs as; a key that others may read it would not take.
    pub(crate) fn give_to(&self, user: Option<User>) -> io::Result<()> {
        fs::set_permissions(self.server(), fs::Permissions::from_mode(0o600))?;
        if let Some(User { id, group }) = user {
            chown(self.folder.path(), Some(id), Some(group))?;
            chown(self.server(), Some(id), Some(group))?;
        }
        Ok(())
    }
}

fn authority(name: &str) -> io::Result<CertifiedIssuer<'static, KeyPair>> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    let key = KeyPair::generate().map_err(io::Error::other)?;
    CertifiedIssuer::self_signed(params, key).map_err(io::Error::other)
}
