//! Turns a request and AWS keys into the headers of its signature.
//!
//! How a request is signed is `aws-sigv4`'s matter; here is where the keys come from. Those of the
//! options go before the profile's, those before the environment's, and the shared credentials file
//! comes last. Nothing asks the metadata services of AWS, and no role is assumed.
//!
//! # Failure
//! - Keys that are nowhere fail the attempt, which is repeated; the file may still come. A region
//!   that is nowhere is an error at the start.

use std::path::PathBuf;
use std::time::{Duration, UNIX_EPOCH};

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4::SigningParams;
use reqwest::Url;
use reqwest::header::{self, HeaderMap, HeaderName, HeaderValue};
use wal::SharedClock;

use super::options::SigV4Options;
use super::secret::{SecretReader, SecretSource};

/// Signs the requests of one endpoint.
pub(super) struct Signer {
    region: String,
    service: String,
    keys: Keys,
    clock: SharedClock,
}

/// Where the keys are.
enum Keys {
    Known(Credentials),
    /// In a profile of the shared credentials file.
    File {
        profile: String,
        file: SecretReader,
    },
}

impl Signer {
    pub(super) fn new(
        options: &SigV4Options,
        clock: SharedClock,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, String> {
        let given = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let variable = |name| environment(name).and_then(|value| given(&value));
        let region = given(&options.region)
            .or_else(|| variable("AWS_REGION"))
            .or_else(|| variable("AWS_DEFAULT_REGION"))
            .ok_or("region not configured in sigv4 or in the environment")?;
        let known = |access: &str, secret: &str, session| {
            Keys::Known(Credentials::new(access, secret, session, None, "penstock"))
        };
        let in_environment = || {
            let access = variable("AWS_ACCESS_KEY_ID")?;
            let secret = variable("AWS_SECRET_ACCESS_KEY")?;
            Some(known(&access, &secret, variable("AWS_SESSION_TOKEN")))
        };
        let keys = if !options.access_key.is_empty() {
            known(&options.access_key, options.secret_key.expose(), None)
        } else if let (true, Some(keys)) = (options.profile.is_empty(), in_environment()) {
            keys
        } else {
            let home = || Some(PathBuf::from(variable("HOME")?).join(".aws/credentials"));
            let path = variable("AWS_SHARED_CREDENTIALS_FILE").map(PathBuf::from);
            let path = path
                .or_else(home)
                .ok_or("sigv4: there is no home directory")?;
            let profile = given(&options.profile).or_else(|| variable("AWS_PROFILE"));
            Keys::File {
                profile: profile.unwrap_or_else(|| "default".to_owned()),
                file: SecretReader::new(SecretSource::File(path), SharedClock::clone(&clock)),
            }
        };
        Ok(Self {
            region,
            service: options.service_name.clone(),
            keys,
            clock,
        })
    }

    /// The headers that sign a POST of `body` to `url`. Of its headers the content type is signed
    /// along; others may change on the way.
    pub(super) fn headers(
        &self,
        url: &Url,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<HeaderMap, String> {
        let signed = [header::CONTENT_TYPE].into_iter().filter_map(|name| {
            let value = headers.get(&name)?.to_str().ok()?;
            Some((name.as_str().to_owned(), value.to_owned()))
        });
        let signed: Vec<_> = signed.collect();
        let signed = signed
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()));
        self.sign("POST", url, signed, body)
    }

    fn sign<'a>(
        &self,
        method: &'a str,
        url: &'a Url,
        headers: impl Iterator<Item = (&'a str, &'a str)>,
        body: &'a [u8],
    ) -> Result<HeaderMap, String> {
        let failed = |_| "sigv4: the request cannot be signed".to_owned();
        let identity = self.credentials()?.into();
        let now_ms = u64::try_from(self.clock.unix_ms()).unwrap_or_default();
        let parameters = SigningParams::builder()
            .identity(&identity)
            .region(&self.region)
            .name(&self.service)
            .time(UNIX_EPOCH + Duration::from_millis(now_ms))
            .settings(SigningSettings::default())
            .build()
            .map_err(|_| "sigv4: a parameter is missing")?
            .into();
        let body = SignableBody::Bytes(body);
        let request = SignableRequest::new(method, url.as_str(), headers, body).map_err(failed)?;
        let (instructions, _) = sign(request, &parameters).map_err(failed)?.into_parts();
        let mut headers = HeaderMap::new();
        for (name, value) in instructions.headers() {
            let illegal = "sigv4: a key cannot be put into a header";
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| illegal)?;
            let mut value = HeaderValue::from_str(value).map_err(|_| illegal)?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        Ok(headers)
    }

    fn credentials(&self) -> Result<Credentials, String> {
        match &self.keys {
            Keys::Known(credentials) => Ok(credentials.clone()),
            Keys::File { profile, file } => {
                let content = file.read().map_err(|problem| format!("sigv4: {problem}"))?;
                profile_keys(content.expose(), profile)
                    .ok_or_else(|| format!("sigv4: profile {profile:?} has no keys"))
            }
        }
    }
}

/// The keys of one section of a shared credentials file.
fn profile_keys(content: &str, profile: &str) -> Option<Credentials> {
    let mut is_inside = false;
    let (mut access, mut secret, mut session) = (None, None, None);
    for line in content.lines().map(str::trim) {
        if let Some(section) = line.strip_prefix('[') {
            is_inside = section.trim_end_matches(']').trim() == profile;
        } else if let (true, Some((name, value))) = (is_inside, line.split_once('=')) {
            let value = Some(value.trim().to_owned());
            match name.trim() {
                "aws_access_key_id" => access = value,
                "aws_secret_access_key" => secret = value,
                "aws_session_token" => session = value,
                _ => {}
            }
        }
    }
    Some(Credentials::new(
        access?, secret?, session, None, "penstock",
    ))
}

#[cfg(test)]
mod tests {
    use super::super::clock::ManualClock;
    use super::*;

    /// Keys, region, service and time of the test suite AWS publishes ("aws-sig-v4-test-suite").
    const ACCESS: &str = "AKIDEXAMPLE";
    const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
    const NOW_MS: u64 = 1_440_938_160_000;

    fn signer(options: &SigV4Options, environment: &[(&str, &str)]) -> Result<Signer, String> {
        let (time, clock) = ManualClock::shared();
        time.set_ms(NOW_MS);
        Signer::new(options, clock, |name| {
            let found = environment.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    fn suite() -> SigV4Options {
        SigV4Options {
            region: "us-east-1".into(),
            access_key: ACCESS.into(),
            secret_key: SECRET.into(),
            profile: String::new(),
            service_name: "service".into(),
        }
    }

    fn signature(signer: &Signer) -> String {
        let url = Url::parse("https://example.amazonaws.com/").unwrap();
        let headers = signer.sign("POST", &url, std::iter::empty(), b"").unwrap();
        assert!(headers.values().all(HeaderValue::is_sensitive));
        headers["authorization"].to_str().unwrap().to_owned()
    }

    #[test]
    fn signatures_are_those_of_the_published_test_suite() {
        let signer = signer(&suite(), &[]).unwrap();
        let form = ("content-type", "application/x-www-form-urlencoded");
        for (name, method, url, header, body, signed, signature) in [
            (
                "get-vanilla",
                "GET",
                "/",
                None,
                "",
                "host;x-amz-date",
                "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
            ),
            (
                "get-vanilla-query-order-key-case",
                "GET",
                "/?Param2=value2&Param1=value1",
                None,
                "",
                "host;x-amz-date",
                "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
            ),
            (
                "post-vanilla",
                "POST",
                "/",
                None,
                "",
                "host;x-amz-date",
                "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b",
            ),
            (
                "post-x-www-form-urlencoded",
                "POST",
                "/",
                Some(form),
                "Param1=value1",
                "content-type;host;x-amz-date",
                "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
            ),
        ] {
            let url = Url::parse(&format!("https://example.amazonaws.com{url}")).unwrap();
            let headers = header.into_iter();
            let headers = signer.sign(method, &url, headers, body.as_bytes()).unwrap();
            assert_eq!(headers["x-amz-date"], "20150830T123600Z");
            let expected = format!(
                "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, \
                 SignedHeaders={signed}, Signature={signature}"
            );
            assert_eq!(headers["authorization"], expected, "{name}");
        }
    }

    #[test]
    fn keys_come_from_options_profile_environment_and_file_in_that_order() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let content = "[default]\naws_access_key_id = FILE\naws_secret_access_key = s\n\
                       [other]\naws_access_key_id=OTHER\naws_secret_access_key=s\n\
                       aws_session_token=t\n";
        std::fs::write(file.path(), content).unwrap();
        let path = ("AWS_SHARED_CREDENTIALS_FILE", file.path().to_str().unwrap());
        let keys = [
            ("AWS_ACCESS_KEY_ID", "ENV"),
            ("AWS_SECRET_ACCESS_KEY", "s"),
            ("AWS_SESSION_TOKEN", "t"),
            path,
        ];
        let none = SigV4Options {
            access_key: String::new(),
            secret_key: "".into(),
            ..suite()
        };
        let other = SigV4Options {
            profile: "other".into(),
            ..none.clone()
        };
        let used = |options: &SigV4Options, environment: &[(&str, &str)]| {
            signature(&signer(options, environment).unwrap())
        };
        assert!(used(&suite(), &keys).contains("Credential=AKIDEXAMPLE/"));
        let with_session = used(&none, &keys);
        assert!(with_session.contains("Credential=ENV/"));
        assert!(with_session.contains("host;x-amz-date;x-amz-security-token"));
        assert!(used(&none, &[path]).contains("Credential=FILE/"));
        assert!(used(&other, &keys).contains("Credential=OTHER/"));
        assert!(used(&none, &[path, ("AWS_PROFILE", "other")]).contains("Credential=OTHER/"));
        let nobody = SigV4Options {
            profile: "nobody".into(),
            ..none
        };
        let problem = signer(&nobody, &keys).unwrap().credentials().unwrap_err();
        assert_eq!(problem, "sigv4: profile \"nobody\" has no keys");
    }

    #[test]
    fn a_region_may_come_from_the_environment_and_must_come_from_somewhere() {
        let nowhere = SigV4Options {
            region: String::new(),
            ..suite()
        };
        assert!(signer(&nowhere, &[]).err().unwrap().contains("region"));
        let found = signer(&nowhere, &[("AWS_REGION", "eu-west-1")]).unwrap();
        assert!(signature(&found).contains("/20150830/eu-west-1/service/"));
    }
}
